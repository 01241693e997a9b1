// Package local answers a provider's own questions to the running spoke, over a unix socket in the data
// folder: what runs, and what would be applied. It works with the hub away. It changes nothing, and
// whoever may open the socket, the data folder's owner, may ask.
package local

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"time"

	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
)

// Socket is the file's name in the data folder.
const Socket = "spoke.sock"

// maxMessage bounds a rendered set, in bytes.
const maxMessage = 128 << 20

// stopWait is how long a call under way may take when the spoke stops.
const stopWait = 2 * time.Second

// subscriptions is the agent. Render with an empty version picks the one that runs, or else the highest
// on offer; its error is for people.
type subscriptions interface {
	Installations() ([]fleet.Installation, error)
	Render(ctx context.Context, distribution, version string) (manifest []byte, err error)
}

// hub is the connection.
type hub interface {
	Connected() bool
	LastContact() time.Time
}

// Identity is who the spoke is at its hub; the zero value before it joined.
type Identity struct {
	Cluster, Addr string
	NotAfter      time.Time
}

// Config is what a Server needs; all is required.
type Config struct {
	Dir      string // data folder; the caller holds it for itself alone
	Agent    subscriptions
	Hub      hub
	Identity func() (Identity, error)
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

// GetStatus implements LocalService.
func (s *Server) GetStatus(context.Context, *localv1.GetStatusRequest) (*localv1.GetStatusResponse, error) {
	all, err := s.cfg.Agent.Installations()
	if err != nil {
		return nil, err
	}
	id, err := s.cfg.Identity()
	if err != nil {
		return nil, err
	}
	r := &localv1.GetStatusResponse{At: wire.Time(time.Now()), Cluster: id.Cluster, Hub: id.Addr, CertificateNotAfter: wire.Time(id.NotAfter),
		Running: true, Connected: s.cfg.Hub.Connected(), LastContact: wire.Time(s.cfg.Hub.LastContact()),
		SpokeVersion: buildinfo.Version(), SpokeCommit: buildinfo.Commit()}
	for _, i := range all {
		r.Subscriptions = append(r.Subscriptions, wire.Installation(i))
	}
	return r, nil
}

// Render implements LocalService.
func (s *Server) Render(ctx context.Context, r *localv1.RenderRequest) (*localv1.RenderResponse, error) {
	manifest, err := s.cfg.Agent.Render(ctx, r.GetDistribution(), r.GetVersion())
	if err != nil {
		return nil, err
	}
	return &localv1.RenderResponse{Manifest: manifest, Digest: fmt.Sprintf("sha256:%x", sha256.Sum256(manifest))}, nil
}
