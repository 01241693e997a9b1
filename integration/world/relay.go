package world

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Relay is a relay process.
type Relay struct {
	Name, Dir, Addr, Log string
	daemon               daemon
	bin                  string
}

// RelayHost is loopback too, and none of the addresses of a hub's own certificate.
const RelayHost = "127.0.0.2"

// NewRelay invites a relay at a hub and runs the line that it prints, below dir.
func NewRelay(ctx context.Context, bin Binaries, dir, name string, h *Hub) (*Relay, error) {
	l, err := net.Listen("tcp", RelayHost+":0")
	if err != nil {
		return nil, err
	}
	r := &Relay{Name: name, Dir: filepath.Join(dir, name), Addr: l.Addr().String(), Log: filepath.Join(dir, name+".log"), bin: bin.Hub}
	l.Close()
	line, err := h.Must(ctx, "relay", "invite", name, "--host", RelayHost)
	if err != nil {
		return nil, err
	}
	words := strings.Fields(strings.ReplaceAll(line, "./relay-data", r.Dir))
	joined, err := command(ctx, dir, nil, bin.Hub, words[1:]...)
	if err == nil && joined.Code != 0 {
		err = fmt.Errorf("hub relay join: exit code %d: %s", joined.Code, joined.Err)
	}
	r.daemon = daemon{name: "relay " + name, log: r.Log, program: bin.Hub, args: []string{"relay", "serve", "--data", r.Dir, "--listen", r.Addr, "--log-level", "debug"}}
	return r, err
}

// Start runs the relay and waits until somebody answers at its port.
func (r *Relay) Start(ctx context.Context) error {
	if err := r.daemon.start(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return Await(ctx, "the relay to listen", func(ctx context.Context) error {
		if r.daemon.exited() {
			return fmt.Errorf("the relay ended: %s", Tail(r.Log, 5))
		}
		conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", r.Addr)
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// Stop ends the relay as an operator would; Kill as a power cut would.
func (r *Relay) Stop() (int, error) { return r.daemon.end(syscall.SIGTERM) }
func (r *Relay) Kill() error        { _, err := r.daemon.end(syscall.SIGKILL); return err }
