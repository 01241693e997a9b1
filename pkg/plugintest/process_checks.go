package plugintest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// withoutHost: started by hand, a plugin ends soon, says so, and is no server to anybody.
func withoutHost(ctx context.Context, b *bench) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	p, _, err := b.start(ctx, func(pluginwire.Identity, string) []string { return nil })
	if err == nil {
		p.kill()
		return fmt.Errorf("it shakes hands without %s=%s in its environment", pluginwire.CookieKey, pluginwire.CookieValue)
	}
	if ctx.Err() != nil || strings.Contains(err.Error(), "signal: killed") {
		return errors.New("without a host it neither ends nor says why")
	}
	return nil
}

func handshake(ctx context.Context, b *bench) (err error) {
	b.proc, err = b.connect(ctx)
	return err
}

// strangers: somebody with another certificate gets no answer.
func strangers(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	other, err := pluginwire.NewIdentity()
	if err != nil {
		return err
	}
	conn, err := pluginwire.Dial(other, p.line)
	if err != nil {
		return err
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	if _, err := pluginv1.NewPluginServiceClient(conn).CheckHealth(ctx, &pluginv1.CheckHealthRequest{}); err == nil || status.Code(err) != codes.Unavailable {
		return fmt.Errorf("it answers a client whose certificate is not in %s (%v): it has to ask for that certificate and no other", pluginwire.CertificateVariable, err)
	}
	return nil
}

func negotiation(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	newest := pluginwire.Contracts()[0]
	answer, err := pluginv1.NewPluginServiceClient(p.conn).Handshake(ctx, &pluginv1.HandshakeRequest{Contracts: append([]string{"99.0"}, pluginwire.Contracts()...), Plugin: "check"})
	if err != nil {
		return fmt.Errorf("offered 99.0 and %s: %s", newest, message(err))
	}
	if !slices.Contains(pluginwire.Contracts(), answer.GetContract()) {
		return fmt.Errorf("offered 99.0 and %s it takes %q", newest, answer.GetContract())
	}
	// The newer protocol of a newer host must not be in the way either.
	newer, _, err := b.start(ctx, func(id pluginwire.Identity, dir string) []string {
		env := pluginwire.Environment(id, dir)
		for i, v := range env {
			if list, ok := strings.CutPrefix(v, pluginwire.VersionsVariable+"="); ok {
				env[i] = pluginwire.VersionsVariable + "=99," + list
			}
		}
		return env
	})
	if err != nil {
		return fmt.Errorf("with %s=99,1: %w", pluginwire.VersionsVariable, err)
	}
	newer.kill()
	return nil
}

func incompatible(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	answer, err := pluginv1.NewPluginServiceClient(p.conn).Handshake(ctx, &pluginv1.HandshakeRequest{Contracts: []string{"99.0"}, Plugin: "check"})
	switch {
	case err == nil:
		return fmt.Errorf("offered 99.0 alone it takes %q: want FAILED_PRECONDITION and what it knows", answer.GetContract())
	case status.Code(err) != codes.FailedPrecondition:
		return fmt.Errorf("offered 99.0 alone it says %s (%s): want FAILED_PRECONDITION", status.Code(err), message(err))
	}
	return nil
}

func introduction(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	var missing []string
	if p.hello.GetName() == "" {
		missing = append(missing, "its name")
	}
	if p.hello.GetVersion() == "" {
		missing = append(missing, "its version")
	}
	for _, k := range p.hello.GetKinds() {
		if k < pluginv1.Kind_KIND_CONFORMANCE || k > pluginv1.Kind_KIND_NOTIFIER {
			missing = append(missing, fmt.Sprintf("a known kind instead of %d", k))
		}
	}
	if len(missing) > 0 {
		return errors.New("its handshake lacks " + strings.Join(missing, ", "))
	}
	return nil
}

func health(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	return p.healthy(ctx)
}

// healthy asks for an answer, good or bad.
func (p *process) healthy(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	answer, err := pluginv1.NewPluginServiceClient(p.conn).CheckHealth(ctx, &pluginv1.CheckHealthRequest{})
	switch {
	case err != nil:
		return fmt.Errorf("CheckHealth: %s", message(err))
	case !answer.GetHealthy() && answer.GetReason() == "":
		return errors.New("CheckHealth: it is not healthy and does not say why")
	}
	return nil
}

func termination(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return skip("this machine has no SIGTERM: " + err.Error())
	}
	b.ended = true
	select {
	case <-p.exited:
		if code := p.cmd.ProcessState.ExitCode(); code != 0 {
			return fmt.Errorf("it ends with %s: want exit status 0", p.cmd.ProcessState)
		}
		return nil
	case <-time.After(endTimeout):
		return fmt.Errorf("it still runs %s after SIGTERM: a spoke kills it then", endTimeout)
	}
}

func leftovers(_ context.Context, b *bench) error {
	if b.proc == nil || !b.ended {
		return skip("it was not ended")
	}
	select {
	case <-b.proc.exited:
	default:
		return skip("it has not ended")
	}
	for end := time.Now().Add(endTimeout); groupAlive(b.proc.cmd.Process); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			return errors.New("processes that it started run on: a spoke kills them")
		}
	}
	return nil
}

func logging(_ context.Context, b *bench) error {
	b.logs.mu.Lock()
	defer b.logs.mu.Unlock()
	switch {
	case b.logs.total > 1<<20:
		return fmt.Errorf("it wrote %d bytes during these checks: a spoke drops what is over its bound", b.logs.total)
	case b.logs.longest > 8<<10:
		return fmt.Errorf("a line has %d bytes: a spoke cuts it", b.logs.longest)
	}
	return nil
}

// message is an error of the wire in its own words.
func message(err error) string { return status.Convert(err).Message() }
