package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// ErrNotRunning: no spoke answers in the data folder.
var ErrNotRunning = errors.New("no spoke runs")

// Client asks a running spoke.
type Client struct {
	conn *grpc.ClientConn
	rpc  localv1.LocalServiceClient
}

// Dial connects to the spoke that runs on dir; ErrNotRunning where none does.
func Dial(ctx context.Context, dir string) (*Client, error) {
	dial := func(ctx context.Context) (net.Conn, error) {
		addr, done, err := address(dir)
		if err != nil {
			return nil, err
		}
		defer done()
		return (&net.Dialer{}).DialContext(ctx, "unix", addr)
	}
	probe, err := dial(ctx)
	switch {
	case errors.Is(err, os.ErrPermission):
		return nil, fmt.Errorf("ask the spoke on %s: %w: its socket is for the user that runs it", filepath.Join(dir, Socket), os.ErrPermission)
	case err != nil:
		return nil, fmt.Errorf("%w on %s", ErrNotRunning, dir)
	}
	probe.Close()
	conn, err := grpc.NewClient("passthrough:///spoke",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return dial(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the socket's mode is the authority
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxMessage)))
	if err != nil {
		return nil, err
	}
	return &Client{conn: conn, rpc: localv1.NewLocalServiceClient(conn)}, nil
}

// Close ends the connection.
func (c *Client) Close() error { return c.conn.Close() }

// Status asks what runs.
func (c *Client) Status(ctx context.Context) (*localv1.GetStatusResponse, error) {
	r, err := c.rpc.GetStatus(ctx, &localv1.GetStatusRequest{})
	return r, plain(ctx, err)
}

// Audit is Status with what another spoke must have been told too.
func (c *Client) Audit(ctx context.Context) (*localv1.GetStatusResponse, error) {
	r, err := c.rpc.GetStatus(ctx, &localv1.GetStatusRequest{Audit: true})
	return r, plain(ctx, err)
}

// Render asks what would be applied; an empty version is the one that runs, or else the highest on offer.
func (c *Client) Render(ctx context.Context, distribution, version string) (*localv1.RenderResponse, error) {
	r, err := c.rpc.Render(ctx, &localv1.RenderRequest{Distribution: distribution, Version: version})
	return r, plain(ctx, err)
}

// Plan asks what delivering a version would do; an empty one is what policy would take next, or else the
// one that runs.
func (c *Client) Plan(ctx context.Context, distribution, version string) (*localv1.PlanResponse, error) {
	r, err := c.rpc.Plan(ctx, &localv1.PlanRequest{Distribution: distribution, Version: version})
	return r, plain(ctx, err)
}

// Approve lets a release go on that waits, or takes up one that is held, and returns its version;
// fleet.ErrNothingWaits where there is none. An empty version is the only one.
func (c *Client) Approve(ctx context.Context, distribution, version string) (string, error) {
	r, err := c.rpc.Approve(ctx, &localv1.ApproveRequest{Distribution: distribution, Version: version})
	return r.GetVersion(), plain(ctx, err)
}

// Reject ends a delivery that waits, and returns its version; fleet.ErrNothingWaits where there is none.
func (c *Client) Reject(ctx context.Context, distribution, version, reason string) (string, error) {
	r, err := c.rpc.Reject(ctx, &localv1.RejectRequest{Distribution: distribution, Version: version, Reason: reason})
	return r.GetVersion(), plain(ctx, err)
}

// RollBack begins the return to an earlier release, or only says what it would be; an empty version is
// the one before. fleet.ErrNothingWaits where there is none to go back to.
func (c *Client) RollBack(ctx context.Context, distribution, version, reason string, dry bool) (from, to string, err error) {
	r, err := c.rpc.RollBack(ctx, &localv1.RollBackRequest{Distribution: distribution, Version: version, Reason: reason, DryRun: dry})
	return r.GetFrom(), r.GetTo(), plain(ctx, err)
}

// Pin holds a subscription at one version, or only says what that would do; the answer is the subscription
// as it is then. The pin's source is the command line, whatever p says.
func (c *Client) Pin(ctx context.Context, distribution string, p fleet.Pin, dry bool) (*syncv1.SubscriptionStatus, error) {
	r, err := c.rpc.Pin(ctx, &localv1.PinRequest{Distribution: distribution, Version: p.Version, Reason: p.Reason, Author: p.Author,
		Until: wire.Time(p.Until), DryRun: dry})
	return r.GetSubscription(), plain(ctx, err)
}

// Unpin takes away the pin that Pin made, or only says whether there is one; fleet.ErrNothingWaits where
// there is none.
func (c *Client) Unpin(ctx context.Context, distribution, reason string, dry bool) error {
	_, err := c.rpc.Unpin(ctx, &localv1.UnpinRequest{Distribution: distribution, Reason: reason, DryRun: dry})
	return plain(ctx, err)
}

// Steer says a person's word about the canary that is under way, and returns its version;
// fleet.ErrNothingWaits where there is none, or where the word changes nothing. An empty version is whichever
// is under way.
func (c *Client) Steer(ctx context.Context, distribution, version string, word fleet.Steer, reason string) (string, error) {
	r, err := c.rpc.Steer(ctx, &localv1.SteerRequest{Distribution: distribution, Version: version, Word: string(word), Reason: reason})
	return r.GetVersion(), plain(ctx, err)
}

// answer is what the spoke said, for people already.
type answer struct {
	text string
	code codes.Code
}

func (a answer) Error() string { return a.text }

func (a answer) Is(target error) bool {
	return target == fleet.ErrNothingWaits && a.code == codes.FailedPrecondition || target == ErrNotRunning && a.code == codes.Unavailable
}

// plain takes the wire's words off.
func plain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	s := status.Convert(err)
	if s.Code() == codes.Unavailable {
		return answer{"the spoke went away", codes.Unavailable}
	}
	return answer{s.Message(), s.Code()}
}
