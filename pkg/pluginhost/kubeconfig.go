package pluginhost

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// Renewal is when a share of the credentials' life is over; where that fails, again after a pause.
const (
	renewAfter = 0.7
	renewPause = 10 * time.Second
)

func (proc *process) kubeconfig() string { return filepath.Join(proc.folder, "kubeconfig") }

// authorise puts fresh credentials in the place of the old ones, in one piece. Where there cannot be any
// yet, expires is zero, and the process has to do without until the next call.
func (p *plugin) authorise(ctx context.Context, proc *process) (expires time.Time, err error) {
	text, expires, err := p.host.cfg.Credentials.Credentials(ctx, p.cfg.Name)
	if errors.Is(err, ErrNotYet) {
		return time.Time{}, nil
	}
	if err != nil {
		return time.Time{}, fmt.Errorf("make its credentials for the cluster: %w", err)
	}
	// Not in its working folder: a plugin may well write there under any name.
	fresh := filepath.Join(proc.folder, "kubeconfig."+unique())
	if err := os.WriteFile(fresh, text, 0o600); err != nil {
		return time.Time{}, fmt.Errorf("write its credentials: %w", err)
	}
	if err := os.Rename(fresh, proc.kubeconfig()); err != nil {
		return time.Time{}, fmt.Errorf("write its credentials: %w", err)
	}
	proc.mu.Lock()
	proc.expires = expires
	proc.mu.Unlock()
	return expires, nil
}

// catchUp makes the credentials that there could not be when the process was started.
func (p *plugin) catchUp(ctx context.Context, proc *process) error {
	proc.mu.Lock()
	without := proc.expires.IsZero()
	proc.mu.Unlock()
	if !p.cfg.Kubeconfig || !without {
		return nil
	}
	_, err := p.authorise(ctx, proc)
	return err
}

// renew keeps the credentials fresh until ctx ends.
func (p *plugin) renew(ctx context.Context, proc *process) {
	proc.mu.Lock()
	expires := proc.expires
	proc.mu.Unlock()
	wait := renewPause
	if !expires.IsZero() {
		wait = untilRenewal(time.Until(expires))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		next, err := p.authorise(ctx, proc)
		switch {
		case err == nil && next.IsZero():
			wait = renewPause
		case err == nil:
			expires = next
			wait = untilRenewal(time.Until(expires))
		case ctx.Err() != nil:
			return
		default:
			wait = renewPause
			p.log.Warn("a plugin's credentials could not be renewed", logging.Error, err, "expires", expires.UTC().Format(time.RFC3339))
		}
	}
}

// untilRenewal is a share of what is left, and never so little that it is done all the time.
func untilRenewal(left time.Duration) time.Duration {
	return max(time.Duration(float64(left)*renewAfter), 100*time.Millisecond)
}
