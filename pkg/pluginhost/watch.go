package pluginhost

import (
	"io"
	"os"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost/supervise"
)

// watch waits for the end of the plugin and clears up after it.
func (proc *process) watch() {
	stderr, read := proc.below.Stderr, make(chan struct{})
	go func() {
		defer close(read)
		lines := proc.logs.stream("stderr")
		io.Copy(lines, stderr) // until it ends or is late
		lines.Flush()
	}()
	go func() {
		e, told := proc.below.Ending()
		if !told {
			proc.below.Wait()
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
			proc.below.Wait()
			proc.sweep()
		}
		proc.tasks.Wait()
		if conn == nil && proc.conn != nil { // made meanwhile by the start, which is over
			proc.conn.Close()
		}
		proc.below.Close()
		proc.logs.close()
		proc.clear()
		close(proc.ended)
	}()
}

func (proc *process) sweep() {
	if err := supervise.Sweep(proc.folder); err != nil {
		proc.log.Warn("processes that a plugin left could not be looked for", logging.Error, err)
	}
}

// stop ends the plugin and all that it started, and waits until that is gone.
func (proc *process) stop() {
	proc.mu.Lock()
	proc.stopping = true
	proc.mu.Unlock()
	proc.below.Stop()
	late := time.AfterFunc(grace+patience, func() {
		proc.log.Warn("a plugin's supervisor does not end: it is killed")
		proc.below.Kill()
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
