package world

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/encoding/protojson"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Hub is a hub process and the operator's terminal.
type Hub struct {
	Dir, Addr, Log string
	Debug          string // where profiles are served; empty: nowhere
	daemon         daemon
	bin            string
}

// NewHub prepares a hub on a free port of loopback, below dir.
func NewHub(bin Binaries, dir string) (*Hub, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	addr := l.Addr().String()
	l.Close()
	h := &Hub{Dir: filepath.Join(dir, "hub"), Addr: addr, Log: filepath.Join(dir, "hub.log"), bin: bin.Hub}
	h.daemon = daemon{name: "hub", log: h.Log, program: bin.Hub, args: []string{"serve", "--data", h.Dir, "--listen", addr, "--log-level", "debug"}}
	return h, nil
}

// Start runs the hub and waits until it answers.
func (h *Hub) Start(ctx context.Context) error {
	if err := h.Spawn(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	return Await(ctx, "the hub to answer", func(ctx context.Context) error {
		if h.daemon.exited() {
			return fmt.Errorf("the hub ended: %s", Tail(h.Log, 5))
		}
		if _, err := os.Stat(h.context()); err != nil {
			return err
		}
		r, err := h.Run(ctx, "version")
		if err == nil && r.Code != 0 {
			err = fmt.Errorf("hub version: %s", r.Err)
		}
		return err
	})
}

// Stop ends the hub as an operator would; Kill as a power cut would.
func (h *Hub) Stop() (int, error) { return h.daemon.end(syscall.SIGTERM) }

// Spawn starts the process and does not wait until it answers.
func (h *Hub) Spawn() error { return h.daemon.start() }

func (h *Hub) Kill() error { _, err := h.daemon.end(syscall.SIGKILL); return err }

// Configure gives the hub a hub.yaml, from its next start on.
func (h *Hub) Configure(text string) error {
	name := filepath.Join(filepath.Dir(h.Dir), "hub.yaml")
	if err := os.WriteFile(name, []byte("version: 1\n"+text), 0o644); err != nil {
		return err
	}
	h.daemon.args = slices.Concat([]string{"serve", "--config", name}, h.daemon.args[1:])
	return nil
}

// Profile has the hub serve profiles on a free port of loopback, from its next start on.
func (h *Hub) Profile() error {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	h.Debug = l.Addr().String()
	h.daemon.args = slices.Insert(h.daemon.args, 1, "--debug", h.Debug)
	return l.Close()
}

// Quiet has the hub log what an operator wants to know, and no more.
func (h *Hub) Quiet() { h.daemon.args[len(h.daemon.args)-1] = "info" }

// Context is the operator's context file.
func (h *Hub) Context() string { return h.context() }

// PID of the hub process.
func (h *Hub) PID() int { return h.daemon.pid() }

func (h *Hub) context() string { return filepath.Join(h.Dir, "admin.yaml") }

// Run runs one command of the operator's.
func (h *Hub) Run(ctx context.Context, args ...string) (Result, error) {
	return command(ctx, "", []string{"WHEELWRIGHT_CONTEXT=" + h.context()}, h.bin, args...)
}

// Must is Run for a command that has to succeed.
func (h *Hub) Must(ctx context.Context, args ...string) (string, error) {
	r, err := h.Run(ctx, args...)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("hub %s: exit code %d: %s", strings.Join(args, " "), r.Code, r.Err)
	}
	return r.Out, err
}

// Status is `hub status -o json`, read back.
func (h *Hub) Status(ctx context.Context) (*fleetv1.GetStatusResponse, error) {
	r, err := h.Run(ctx, "status", "-o", "json")
	if err != nil {
		return nil, err
	}
	if r.Code > 1 {
		return nil, fmt.Errorf("hub status: exit code %d: %s", r.Code, r.Err)
	}
	s := &fleetv1.GetStatusResponse{}
	if err := protojson.Unmarshal([]byte(r.Out), s); err != nil {
		return nil, fmt.Errorf("hub status -o json: %w", err)
	}
	return s, nil
}

// Release is `hub release describe -o json`, read back.
func (h *Hub) Release(ctx context.Context, distribution, version string) (*fleetv1.Release, error) {
	out, err := h.Must(ctx, "release", "describe", distribution, version, "-o", "json")
	if err != nil {
		return nil, err
	}
	r := &fleetv1.GetReleaseResponse{}
	if err := protojson.Unmarshal([]byte(out), r); err != nil {
		return nil, fmt.Errorf("hub release describe -o json: %w", err)
	}
	return r.GetRelease(), nil
}

// Rollout is `hub rollout status -o json`, read back.
func (h *Hub) Rollout(ctx context.Context, distribution, version string) (*fleetv1.Rollout, error) {
	r, err := h.Run(ctx, "rollout", "status", distribution, version, "-o", "json")
	if err != nil {
		return nil, err
	}
	got := &fleetv1.GetRolloutResponse{}
	if err := protojson.Unmarshal([]byte(r.Out), got); err != nil {
		return nil, fmt.Errorf("hub rollout status -o json: exit code %d: %s%w", r.Code, r.Err, err)
	}
	return got.GetRollout(), nil
}

// AwaitRows waits until check accepts the row of every named cluster; of all of them without names.
func (h *Hub) AwaitRows(ctx context.Context, what string, check func(*fleetv1.StatusRow) error, clusters ...string) error {
	return Await(ctx, what, func(ctx context.Context) error {
		s, err := h.Status(ctx)
		if err != nil {
			return err
		}
		seen := 0
		for _, row := range s.GetRows() {
			if len(clusters) > 0 && !contains(clusters, row.GetCluster()) {
				continue
			}
			seen++
			if err := check(row); err != nil {
				return fmt.Errorf("%s: %w", row.GetCluster(), err)
			}
		}
		if seen == 0 || (len(clusters) > 0 && seen < len(clusters)) {
			return fmt.Errorf("hub status shows %d rows of the clusters %v", seen, clusters)
		}
		return nil
	})
}

func contains(all []string, s string) bool {
	for _, a := range all {
		if a == s {
			return true
		}
	}
	return false
}

// Runs accepts a row that runs version, healthy and at rest.
func Runs(version string) func(*fleetv1.StatusRow) error {
	return func(r *fleetv1.StatusRow) error {
		if r.GetRunningVersion() != version || r.GetRawPhase() != "Succeeded" || r.GetHealth() != "Healthy" {
			return fmt.Errorf("want %s running, Succeeded and Healthy; got %q, %s, %s (%s)", version, r.GetRunningVersion(), r.GetPhase(), r.GetHealth(), r.GetReason())
		}
		return nil
	}
}

// In accepts a row in the given phase that runs version.
func In(phase, version string) func(*fleetv1.StatusRow) error {
	return func(r *fleetv1.StatusRow) error {
		if r.GetRawPhase() != phase || r.GetRunningVersion() != version {
			return fmt.Errorf("want %s with %q running; got %s with %q (%s)", phase, version, r.GetPhase(), r.GetRunningVersion(), r.GetReason())
		}
		return nil
	}
}
