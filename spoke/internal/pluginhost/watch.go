package pluginhost

import (
	"encoding/json"
	"io"
	"os"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// watch waits for the end of the plugin and clears up after it.
func (proc *process) watch(stderr, report *os.File) {
	read := make(chan struct{})
	go func() {
		defer close(read)
		lines := proc.logs.stream("stderr")
		io.Copy(lines, stderr) // until it ends or is late
		lines.Flush()
	}()
	go func() {
		// The report comes when all that the plugin started is gone; it ends without one where the
		// supervisor was killed.
		var e ending
		told := json.NewDecoder(io.LimitReader(report, 64<<10)).Decode(&e) == nil
		if !told {
			proc.cmd.Wait()
			proc.sweep()
		}
		stderr.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		<-read
		proc.mu.Lock()
		proc.ending = e
		conn, stopping := proc.conn, proc.stopping
		proc.mu.Unlock()
		close(proc.exited)
		proc.quit()
		if !stopping {
			proc.log.Warn("plugin ended", logging.Reason, proc.how(), "last", proc.logs.last(), logging.Duration, time.Since(proc.began).Round(time.Millisecond))
		}
		if conn != nil {
			conn.Close()
		}
		if told {
			proc.cmd.Wait() // how it ended is in its report
			proc.sweep()
		}
		proc.tasks.Wait()
		if conn == nil && proc.conn != nil { // made meanwhile by the start, which is over
			proc.conn.Close()
		}
		stderr.Close()
		report.Close()
		proc.life.Close()
		proc.logs.close()
		proc.clear()
		close(proc.ended)
	}()
}

func (proc *process) sweep() {
	if err := sweep(proc.folder); err != nil {
		proc.log.Warn("processes that a plugin left could not be looked for", logging.Error, err)
	}
}

// stop ends the plugin and all that it started, and waits until that is gone.
func (proc *process) stop() {
	proc.mu.Lock()
	proc.stopping = true
	proc.mu.Unlock()
	_, _ = proc.life.Write([]byte("stop\n")) // an error: it has ended
	late := time.AfterFunc(grace+patience, func() {
		proc.log.Warn("a plugin's supervisor does not end: it is killed")
		proc.cmd.Process.Kill()
	})
	defer late.Stop()
	<-proc.ended
}

func (proc *process) over() bool {
	select {
	case <-proc.exited:
		return true
	default:
		return false
	}
}

// how says how the process ended.
func (proc *process) how() string {
	proc.mu.Lock()
	defer proc.mu.Unlock()
	switch e := proc.ending; {
	case e.Reason != "":
		return printable(e.Reason, maxReason)
	case e.Exit != "":
		return printable(e.Exit, maxReason)
	}
	return "killed with its supervisor"
}

func (proc *process) clear() {
	for _, dir := range proc.remove {
		if err := os.RemoveAll(dir); err != nil {
			proc.log.Warn("a plugin's folder is still there", logging.Path, dir, logging.Error, err)
		}
	}
}
