//go:build !linux

package supervise

import (
	"bufio"
	"encoding/json"
	"os"
	"os/exec"
	"syscall"
	"time"
)

type isolation struct {
	name      string
	namespace bool
}

func (isolation) attributes() *syscall.SysProcAttr { return nil }

// isolations: here only the plugin's own process is ended, not what it starts.
func isolations(bool) []isolation { return []isolation{{name: "none"}} }

func notPermitted(error) bool { return false }

// Sweep has no way to look.
func Sweep(string) error { return nil }

// ChildMain belongs in the first line of main, and of TestMain where a test runs plugins: in a process
// that was started as a supervisor it supervises and exits. In any other it returns false at once.
func ChildMain() bool {
	if len(os.Args) == 0 || os.Args[0] != childName {
		return false
	}
	in := bufio.NewReader(os.Stdin)
	var o wire
	text, err := in.ReadBytes('\n')
	if err != nil || json.Unmarshal(text, &o) != nil {
		os.Exit(1)
	}
	cmd := &exec.Cmd{Path: o.Path, Args: o.Args, Env: o.Env, Dir: o.Dir, Stdout: os.Stdout, Stderr: os.Stderr}
	var e Ending
	if err := cmd.Start(); err != nil {
		e.Reason = "start: " + err.Error()
	} else {
		go func() {
			if word, _ := in.ReadString('\n'); word == "stop\n" && cmd.Process.Signal(syscall.SIGTERM) == nil {
				time.Sleep(o.Grace)
			}
			cmd.Process.Kill()
		}()
		cmd.Wait()
		e.Exit = cmd.ProcessState.String()
	}
	for _, dir := range o.Remove {
		os.RemoveAll(dir)
	}
	json.NewEncoder(os.NewFile(4, "report")).Encode(e)
	os.Exit(0)
	return true
}
