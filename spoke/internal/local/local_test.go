package local

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
)

type stand struct{ manifest []byte }

func (stand) Installations() ([]fleet.Installation, error) {
	return []fleet.Installation{{Distribution: "shop", Running: "1.0.0", Phase: fleet.Succeeded, Health: fleet.Healthy}}, nil
}

func (a stand) Render(_ context.Context, distribution, version string) ([]byte, []string, error) {
	if distribution != "shop" {
		return nil, nil, errors.New("distribution \"" + distribution + "\": not in spoke.yaml")
	}
	return append([]byte("# "+version+"\n"), a.manifest...), []string{"Service shop/x: outside"}, nil
}

func (stand) Memories() ([]fleet.Memory, error) {
	return []fleet.Memory{{Distribution: "shop", Previous: []string{"0.9.0", "0.8.0"}, Held: []fleet.Held{{Version: "1.1.0", Reason: "it crashed", At: time.Unix(7, 0)}}}}, nil
}

func (stand) Plan(_ context.Context, distribution, version string) (fleet.Plan, error) {
	return fleet.Plan{From: "1.0.0", To: version,
		Preflight: fleet.Preflight{Version: version, Outcome: fleet.OutcomeChanges, Reversibility: fleet.OneWay, Changes: []fleet.KindChange{{Kind: "Service", Verb: fleet.VerbDelete, Count: 1}}},
		Steps:     []fleet.Step{{Verb: fleet.VerbDelete, Object: "Service " + distribution + "/web"}},
		Adopted:   []string{"a"}, Conflicts: []string{"c"}, Unchecked: []string{"u"}, Problems: []string{"p"}, Asks: []string{"why"}, OneWay: []string{"w"}}, nil
}

func (stand) Approve(_ context.Context, distribution, version string) (string, error) {
	if version == "1.2.0" {
		return version, nil
	}
	return "", fmt.Errorf("%s: %w", distribution, fleet.ErrNothingWaits)
}

func (stand) Reject(_ context.Context, distribution, version, reason string) (string, error) {
	if reason == "" {
		return "", fmt.Errorf("%s: %w", distribution, fleet.ErrNothingWaits)
	}
	return version + " " + reason, nil
}

func (stand) RollBack(_ context.Context, distribution, version, reason string, dry bool) (from, to string, err error) {
	if version == "" {
		return "", "", errors.New(distribution + ": busy")
	}
	return fmt.Sprint(reason, dry), version, nil
}

func (stand) Pin(_ context.Context, distribution string, p fleet.Pin, dry bool) (fleet.Installation, error) {
	if p.Version == "9.9.9" {
		return fleet.Installation{}, errors.New(distribution + " 9.9.9: not on offer")
	}
	return fleet.Installation{Distribution: distribution, Policy: fleet.Policy{Pin: &p}, Reason: fmt.Sprint(dry), Wants: p.Version, Would: "1.2.0"}, nil
}

func (stand) Unpin(_ context.Context, distribution, reason string, dry bool) error {
	if !dry && reason == "over" {
		return nil
	}
	return fmt.Errorf("%s: %w", distribution, fleet.ErrNothingWaits)
}

func (stand) Steer(_ context.Context, distribution, version string, word fleet.Steer, reason string) (string, error) {
	if version == "" {
		return "", fmt.Errorf("%s: %w", distribution, fleet.ErrNothingWaits)
	}
	return fmt.Sprint(version, " ", word, " ", reason), nil
}

type away struct{}

func (away) Connected() bool         { return false }
func (away) LastContact() time.Time  { return time.Unix(5, 0) }
func (away) Refused() (string, bool) { return "", false }

func serve(t *testing.T, dir string, manifest []byte) (stop func()) {
	t.Helper()
	s := New(Config{Dir: dir, Agent: stand{manifest}, Hub: away{}, Log: slog.New(slog.DiscardHandler), ReHome: func() *ReHome { return nil },
		Identity: func() (Identity, error) { return Identity{Cluster: "acme/eu-1", Addr: "hub:7443"}, nil }})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	deadline := time.After(10 * time.Second)
	for {
		c, err := Dial(ctx, dir)
		if err == nil {
			c.Close()
			break
		}
		select {
		case err := <-ended:
			t.Fatal(err)
		case <-deadline:
			t.Fatal(err)
		case <-time.After(time.Millisecond):
		}
	}
	return func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func TestAsk(t *testing.T) {
	for name, dir := range map[string]string{"short": t.TempDir(), "long": filepath.Join(t.TempDir(), strings.Repeat("deep/", 30))} {
		t.Run(name, func(t *testing.T) {
			if err := os.MkdirAll(dir, 0o700); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, Socket)
			if _, err := Dial(t.Context(), dir); !errors.Is(err, ErrNotRunning) {
				t.Errorf("got %v", err)
			}
			if err := os.WriteFile(path, nil, 0o600); err != nil { // what a killed spoke leaves
				t.Fatal(err)
			}
			stop := serve(t, dir, bytes.Repeat([]byte("x"), 10<<20))
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v %v", info.Mode(), err)
			}
			c, err := Dial(t.Context(), dir)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			r, err := c.Status(t.Context())
			if err != nil || r.GetCluster() != "acme/eu-1" || !r.GetRunning() || r.GetConnected() || !wire.FromTime(r.GetLastContact()).Equal(time.Unix(5, 0)) ||
				r.GetSandbox() != render.Offered() || len(r.GetSubscriptions()) != 1 || r.GetSubscriptions()[0].GetRunningVersion() != "1.0.0" {
				t.Errorf("%v %v", r, err)
			}
			m, err := c.Render(t.Context(), "shop", "1.0.0")
			if err != nil || len(m.GetOutside()) != 1 || len(m.GetManifest()) != 10<<20+8 || !strings.HasPrefix(m.GetDigest(), "sha256:") {
				t.Errorf("%d bytes, %v", len(m.GetManifest()), err)
			}
			if _, err := c.Render(t.Context(), "mail", ""); err == nil || err.Error() != `distribution "mail": not in spoke.yaml` {
				t.Errorf("got %v", err)
			}
			speak(t, c)
			stop()
			if _, err := c.Status(t.Context()); !errors.Is(err, ErrNotRunning) {
				t.Errorf("after it stopped: %v", err)
			}
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is left: %v", err)
			}
		})
	}
}

// speak asks for a plan and gives each order, once to be obeyed and once not.
func speak(t *testing.T, c *Client) {
	t.Helper()
	ctx := t.Context()
	r, err := c.Status(ctx)
	if err != nil || len(r.GetMemories()) != 1 {
		t.Fatalf("%v %v", r, err)
	}
	if m := r.GetMemories()[0]; m.GetDistribution() != "shop" || strings.Join(m.GetPrevious(), " ") != "0.9.0 0.8.0" || len(m.GetHeld()) != 1 ||
		m.GetHeld()[0].GetVersion() != "1.1.0" || m.GetHeld()[0].GetReason() != "it crashed" || !wire.FromTime(m.GetHeld()[0].GetAt()).Equal(time.Unix(7, 0)) {
		t.Errorf("got %v", m)
	}
	p, err := c.Plan(ctx, "shop", "1.2.0")
	if err != nil {
		t.Fatal(err)
	}
	lists := slices.Concat(p.GetAdopted(), p.GetConflicts(), p.GetUnchecked(), p.GetProblems(), p.GetAsks(), p.GetOneWay())
	if p.GetFrom() != "1.0.0" || p.GetTo() != "1.2.0" || strings.Join(lists, " ") != "a c u p why w" || len(p.GetSteps()) != 1 ||
		p.GetSteps()[0].GetVerb() != "delete" || p.GetSteps()[0].GetObject() != "Service shop/web" {
		t.Errorf("got %v", p)
	}
	if f, err := wire.FromPreflight(p.GetPreflight()); err != nil || f.Reversibility != fleet.OneWay || len(f.Changes) != 1 {
		t.Errorf("got %+v, %v", f, err)
	}
	if v, err := c.Approve(ctx, "shop", "1.2.0"); v != "1.2.0" || err != nil {
		t.Errorf("got %s, %v", v, err)
	}
	if v, err := c.Reject(ctx, "shop", "1.2.0", "no"); v != "1.2.0 no" || err != nil {
		t.Errorf("got %s, %v", v, err)
	}
	if from, to, err := c.RollBack(ctx, "shop", "0.9.0", "bad", true); from != "badtrue" || to != "0.9.0" || err != nil {
		t.Errorf("got %s, %s, %v", from, to, err)
	}
	pin := fleet.Pin{Version: "1.0.0", Reason: "audit", Author: "ada", Until: time.Now().Add(time.Hour).UTC(), Source: "somewhere"}
	if s, err := c.Pin(ctx, "shop", pin, true); err != nil || s.GetReason() != "true" || s.GetWants() != "1.0.0" || s.GetWould() != "1.2.0" {
		t.Errorf("got %v, %v", s, err)
	} else if got, err := wire.FromPolicy(s.GetPolicy()); err != nil || got.Pin.Source != fleet.PinSpoke || got.Pin.Author != "ada" || !got.Pin.Until.Equal(pin.Until) || got.Pin.Reason != "audit" {
		t.Errorf("got %+v, %v", got.Pin, err)
	}
	for _, p := range []fleet.Pin{{Version: "9.9.9"}, {Version: "latest"}, {Version: "1.0.0", Until: time.Unix(1, 0)}} {
		if _, err := c.Pin(ctx, "shop", p, false); err == nil || errors.Is(err, fleet.ErrNothingWaits) {
			t.Errorf("%v: got %v", p, err)
		}
	}
	if err := c.Unpin(ctx, "shop", "over", false); err != nil {
		t.Error(err)
	}
	if err := c.Unpin(ctx, "shop", "", true); !errors.Is(err, fleet.ErrNothingWaits) {
		t.Errorf("got %v", err)
	}
	if v, err := c.Steer(ctx, "shop", "1.2.0", fleet.SteerHold, "lunch"); v != "1.2.0 hold lunch" || err != nil {
		t.Errorf("got %s, %v", v, err)
	}
	if _, err := c.Steer(ctx, "shop", "1.2.0", "faster", ""); err == nil || err.Error() != `"faster" is none of hold, resume, step and skip` || errors.Is(err, fleet.ErrNothingWaits) {
		t.Errorf("got %v", err)
	}
	_, steer := c.Steer(ctx, "shop", "", fleet.SteerSkip, "")
	_, approve := c.Approve(ctx, "shop", "")
	_, reject := c.Reject(ctx, "shop", "", "")
	for _, err := range []error{approve, reject, steer} {
		if !errors.Is(err, fleet.ErrNothingWaits) || err.Error() != "shop: nothing to act on" {
			t.Errorf("got %v", err)
		}
	}
	if _, _, err := c.RollBack(ctx, "shop", "", "", false); err == nil || errors.Is(err, fleet.ErrNothingWaits) || err.Error() != "shop: busy" {
		t.Errorf("got %v", err)
	}
}

// No goroutine is left behind.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
