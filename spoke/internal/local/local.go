// Package local answers a provider's own questions to the running spoke, over a unix socket in the data
// folder: what runs, what would be applied and what that would do; and it passes the provider's word on:
// go on, do not, go back, stay, lead it faster. It works with the hub away. It decides nothing, and whoever may open the
// socket, the data folder's owner, may ask and say.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
)

// Socket is the file's name in the data folder.
const Socket = "spoke.sock"

// maxMessage bounds a rendered set, in bytes.
const maxMessage = 128 << 20

// stopWait is how long a call under way may take when the spoke stops.
const stopWait = 2 * time.Second

// questions are asked of the agent. Memories are in the order of Installations. Render with an empty
// version picks the one that runs, or else the highest on offer; Plan the one that policy would take
// next, or else the one that runs. Their errors are for people.
type questions interface {
	Installations() ([]fleet.Installation, error)
	Memories() ([]fleet.Memory, error)
	Render(ctx context.Context, distribution, version string) (manifest []byte, outside []string, err error)
	Plan(ctx context.Context, distribution, version string) (fleet.Plan, error)
}

// orders are given to the agent. They answer when what was said is recorded, with the versions that it
// came to. An error that is fleet.ErrNothingWaits says that there was nothing to act on; all are for
// people.
type orders interface {
	Approve(ctx context.Context, distribution, version string) (approved string, err error)
	Reject(ctx context.Context, distribution, version, reason string) (rejected string, err error)
	RollBack(ctx context.Context, distribution, version, reason string, dry bool) (from, to string, err error)
}

// pins are orders too. Pin answers the subscription as it is with the pin, or would be: what it then takes
// of the offer, and as its reason why that is not the pinned version. Unpin takes away what Pin made, and
// nothing else: where that is none, the error is fleet.ErrNothingWaits.
type pins interface {
	Pin(ctx context.Context, distribution string, p fleet.Pin, dry bool) (fleet.Installation, error)
	Unpin(ctx context.Context, distribution, reason string, dry bool) error
}

// steering is an order about the canary that is under way, or of this version only; it answers which one
// that is. Where none is, or where the word changes nothing, the error is fleet.ErrNothingWaits.
type steering interface {
	Steer(ctx context.Context, distribution, version string, word fleet.Steer, reason string) (steered string, err error)
}

// agent is all of them.
type agent interface {
	questions
	orders
	pins
	steering
}

// hub is the connection.
type hub interface {
	Connected() bool
	LastContact() time.Time
	Refused() (reason string, pending bool)
}

// Identity is who the spoke is at its hub; the zero value before it joined.
type Identity struct {
	Cluster, Addr string
	Via           string // HOST:PORT of the relay that the hub is reached through; empty: directly
	NotAfter      time.Time
	Key           string // fingerprint
}

// ReHome is a move to another hub that is under way.
type ReHome struct {
	To      string // HOST:PORT
	Expires time.Time
	Waits   string // what for, one line
	Key     string // fingerprint of the key for that hub; empty: it has not joined there yet
	Pending bool   // the vendor has to accept that key
}

// Config is what a Server needs; all is required.
type Config struct {
	Dir      string // data folder; the caller holds it for itself alone
	Agent    agent
	Hub      hub
	Identity func() (Identity, error)
	ReHome   func() *ReHome // nil: none is under way
	Log      *slog.Logger
}

// Server answers LocalService.
type Server struct {
	localv1.UnimplementedLocalServiceServer
	cfg Config
}

// New opens nothing.
func New(cfg Config) *Server { return &Server{cfg: cfg} }

// Run answers until ctx ends, then returns nil. A socket that a killed spoke left is replaced.
func (s *Server) Run(ctx context.Context) error {
	path := filepath.Join(s.cfg.Dir, Socket)
	l, err := listen(s.cfg.Dir)
	if err != nil {
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	defer os.Remove(path)
	server := grpc.NewServer(grpc.MaxSendMsgSize(maxMessage))
	localv1.RegisterLocalServiceServer(server, s)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-ctx.Done()
		force := time.AfterFunc(stopWait, server.Stop)
		defer force.Stop()
		server.GracefulStop()
	}()
	s.cfg.Log.Debug("answering local questions", logging.Path, path)
	if err = server.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("answer on %s: %w", path, err)
	}
	<-ended
	return nil
}

// listen makes the socket, for the folder's owner only.
func listen(dir string) (net.Listener, error) {
	path := filepath.Join(dir, Socket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	addr, done, err := address(dir)
	if err != nil {
		return nil, err
	}
	defer done()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: addr, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false) // Run removes it by its own name
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// address is a name for the socket that fits into the kernel's 108 bytes, however long the folder's is.
func address(dir string) (name string, done func(), err error) {
	const room = 100
	if path := filepath.Join(dir, Socket); len(path) <= room {
		return path, func() {}, nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), Socket), func() { f.Close() }, nil
}
