package local

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
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

// Render asks what would be applied; an empty version is the one that runs, or else the highest on offer.
func (c *Client) Render(ctx context.Context, distribution, version string) (*localv1.RenderResponse, error) {
	r, err := c.rpc.Render(ctx, &localv1.RenderRequest{Distribution: distribution, Version: version})
	return r, plain(ctx, err)
}

// plain takes the wire's words off: what the spoke says is for people already.
func plain(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.New(status.Convert(err).Message())
}
