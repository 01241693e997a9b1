package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// Spoke is a spoke process and its provider's terminal.
type Spoke struct {
	Cluster, Kubeconfig string
	Dir, Config, Log    string
	daemon              daemon
	bin                 string
}

// NewSpoke prepares a spoke for the cluster "provider/name" in a folder of its own below dir.
func NewSpoke(bin Binaries, dir, cluster, kubeconfig string) (*Spoke, error) {
	base := filepath.Join(dir, strings.ReplaceAll(cluster, "/", "-"))
	return NewSpokeIn(bin, base, filepath.Join(base, "data"), cluster, kubeconfig)
}

// NewSpokeIn prepares a spoke with its files in folder and its state in data.
func NewSpokeIn(bin Binaries, folder, data, cluster, kubeconfig string) (*Spoke, error) {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return nil, err
	}
	s := &Spoke{Cluster: cluster, Kubeconfig: kubeconfig, Dir: data, Config: filepath.Join(folder, "spoke.yaml"), Log: filepath.Join(folder, "spoke.log"), bin: bin.Spoke}
	s.daemon = daemon{name: "spoke of " + cluster, log: s.Log, program: bin.Spoke, args: []string{"run", "--data", s.Dir, "--config", s.Config, "--log-level", "debug"}}
	return s, nil
}

// Folder is where the provider keeps spoke.yaml and its overlay.
func (s *Spoke) Folder() string { return filepath.Dir(s.Config) }

// Join invites the cluster at the hub and runs the line that the hub prints; nobody compares fingerprints.
func (s *Spoke) Join(ctx context.Context, h *Hub, inviteArgs ...string) error {
	line, err := h.Must(ctx, append([]string{"cluster", "invite", s.Cluster, "--accept-automatically"}, inviteArgs...)...)
	if err != nil {
		return err
	}
	r, err := s.RunLine(ctx, line)
	if err == nil && r.Code != 0 {
		err = fmt.Errorf("spoke join: exit code %d: %s", r.Code, r.Err)
	}
	return err
}

// RunLine runs a line that the hub printed, in this spoke's data folder.
func (s *Spoke) RunLine(ctx context.Context, line string) (Result, error) {
	words := strings.Fields(line)
	for i, w := range words {
		if w == "--data" && i+1 < len(words) {
			words[i+1] = s.Dir
		}
	}
	return command(ctx, s.Folder(), nil, s.bin, words[1:]...)
}

// Configure writes spoke.yaml; the kubeconfig is put in.
func (s *Spoke) Configure(subscriptions string) error {
	return os.WriteFile(s.Config, fmt.Appendf(nil, "version: 1\nkubeconfig: %s\nhealthTimeout: 20s\nsubscriptions:\n%s", s.Kubeconfig, subscriptions), 0o644)
}

// Overlay writes a file of the provider's overlay.
func (s *Spoke) Overlay(name, content string) error {
	path := filepath.Join(s.Folder(), "overlay", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, []byte(content), 0o644)
}

// Start runs the spoke.
func (s *Spoke) Start() error { return s.daemon.start() }

// Stop ends the spoke as a provider would; Kill as a power cut would.
func (s *Spoke) Stop() (int, error) { return s.daemon.end(syscall.SIGTERM) }
func (s *Spoke) Kill() error        { _, err := s.daemon.end(syscall.SIGKILL); return err }

// PID of the spoke process.
func (s *Spoke) PID() int { return s.daemon.pid() }

// Run runs one command of the provider's, on this spoke's data folder.
func (s *Spoke) Run(ctx context.Context, args ...string) (Result, error) {
	return command(ctx, s.Folder(), nil, s.bin, append(args, "--data", s.Dir)...)
}
