package hub

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// One that sends as fast as it can is kept from sending once it has had its part, and the other is answered meanwhile.
func TestASpokeThatSendsAsFastAsItCan(t *testing.T) {
	hub := start(t, Config{Dir: filepath.Join(t.TempDir(), "data"), Heartbeat: 5 * time.Minute})
	fast, _ := hub.dial(t, hub.enrol(t, "acme/eu-1")).connect(t, 0)
	other, _ := hub.dial(t, hub.enrol(t, "globex/eu-1")).connect(t, 0)
	// A burst of 4,096, then 2,000 a second, and what fits into the windows of both sides, at 7 bytes each.
	const many, free = 30_000, 4096 + 2*(1<<16)/7
	began, done := time.Now(), make(chan error, 1)
	go func() {
		for range many {
			if err := fast.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Heartbeat{Heartbeat: &syncv1.Heartbeat{}}}); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	answered := uint64(0)
	for over := false; !over; {
		say(t, other, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{Seq: answered + 1, Kind: syncv1.EventKind_EVENT_KIND_AGENT, Message: "well"}}})
		for {
			if seq := hear(t, other).GetAck().GetSeq(); seq > answered {
				answered = seq
				break
			}
		}
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			over = true
		default:
		}
	}
	took := time.Since(began)
	t.Logf("%d messages in %v, the other was answered %d times", many, took, answered)
	if least := (many - free) * time.Second / 2000; took < least {
		t.Errorf("%d messages were taken within %v, want at least %v", many, took, least)
	}
	if answered < 2 {
		t.Error("the other was not answered meanwhile")
	}
}

// child is a hub in a process of its own, which ends when its input does.
type child struct {
	*exec.Cmd
	info Info
	in   io.Closer
	log  *strings.Builder // to be read when it has ended
}

// spawn starts a hub on dir that may open so many files; 0: as many as the test.
func spawn(t *testing.T, dir string, files int) *child {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	limit := ""
	if files > 0 {
		limit = fmt.Sprintf("ulimit -n %d; ", files)
	}
	c := &child{Cmd: exec.Command("sh", "-c", limit+`exec "$0"`, self), info: Info{AdminContext: filepath.Join(dir, adminFile)}, log: &strings.Builder{}}
	c.Env = append(os.Environ(), hubVariable+"="+dir)
	c.Stderr = c.log
	if c.in, err = c.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
		t.Fatalf("the hub did not start:\n%s", c.log.String())
	}
	c.info.Addr = lines.Text()
	return c
}

// A hub that may open few files turns away who is too many, by name, and goes on with who is there.
func TestAHubWithFewFiles(t *testing.T) {
	const files = 200
	dir := filepath.Join(t.TempDir(), "data")
	child := spawn(t, dir, files)
	stop := func() {
		child.in.Close()
		if err := child.Wait(); err != nil {
			t.Errorf("the hub ended: %v\n%s", err, child.log.String())
		}
	}
	info := child.info
	hub := connected(t, info)
	identity := hub.enrol(t, "acme/eu-1")
	stream, _ := hub.dial(t, identity).connect(t, 0)
	var crowd []net.Conn
	closed := 0
	for range 2 * files {
		c, err := tls.Dial("tcp", info.Addr, &tls.Config{RootCAs: identity.RootCAs, NextProtos: []string{"h2"}})
		if err == nil {
			crowd = append(crowd, c)
		} else {
			closed++
		}
	}
	t.Logf("%d were let in and %d turned away", len(crowd), closed)
	if closed < files || len(crowd) < files/2 {
		t.Errorf("%d were let in and %d turned away, of %d with %d files", len(crowd), closed, 2*files, files)
	}
	said := uint64(0)
	well := func() {
		said++
		say(t, stream, &syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{Seq: said, Kind: syncv1.EventKind_EVENT_KIND_AGENT, Message: "well"}}})
		for hear(t, stream).GetAck().GetSeq() != said {
		}
	}
	well()
	for _, c := range crowd {
		c.Close()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for { // the hub sees them go, and lets others in
		next := hub.dial(t, identity)
		s, err := next.client.Connect(ctx)
		if err == nil {
			_ = s.CloseSend()
			_, err = s.Recv()
		}
		if err == io.EOF || ctx.Err() != nil || err != nil && !strings.Contains(err.Error(), "Unavailable") {
			break
		}
	}
	if ctx.Err() != nil {
		t.Error("nobody is let in after the crowd has gone")
	}
	well()
	stop()
	if text := child.log.String(); !strings.Contains(text, "may open no more files") || !strings.Contains(text, "ulimit -n") {
		t.Errorf("the log does not say why and what to do:\n%s", text)
	}
}
