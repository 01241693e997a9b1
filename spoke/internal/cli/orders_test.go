package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

// stand is a spoke with one subscription, to be asked and told.
type stand struct {
	mu    sync.Mutex
	now   fleet.Installation
	held  []fleet.Held
	plan  fleet.Plan
	heard []string
	ends  fleet.Phase // of a return; empty: it does not end
	looks int         // at the status before a return ends
	seen  int         // looks at the status

	looked func() // what happens at one

	withdrawn []fleet.Withdrawal
	via       string // the relay's address
}

func newStand() *stand {
	return &stand{now: installations()[0], ends: fleet.RolledBack, looks: 1}
}

func (s *stand) Connected() bool        { return true }
func (s *stand) LastContact() time.Time { return moment }

func (s *stand) Refused() (string, bool) { return "", false }

func (s *stand) Installations() ([]fleet.Installation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen++; s.looked != nil {
		s.looked()
	}
	if s.now.Phase == fleet.RollingBack && s.ends != "" {
		if s.looks--; s.looks < 0 {
			s.now.Phase = s.ends
		}
	}
	return []fleet.Installation{s.now}, nil
}

func (s *stand) Memories() ([]fleet.Memory, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return []fleet.Memory{{Distribution: "shop", Previous: []string{"1.0.1", "1.0.0"}, Held: s.held, Withdrawn: s.withdrawn}}, nil
}

func (s *stand) Render(_ context.Context, distribution, version string) ([]byte, []string, error) {
	if version == "6.6.6" {
		return []byte("kind: Node\n"), []string{"Node n: kind: it has no namespace"}, nil
	}
	if version == "9.9.9" {
		return nil, nil, errors.New(`shop "9.9.9" is not on offer`)
	}
	return []byte("# " + distribution + " " + version + "\n"), nil, nil
}

func (s *stand) Plan(_ context.Context, distribution, version string) (fleet.Plan, error) {
	if version == "9.9.9" {
		return fleet.Plan{}, errors.New(`shop "9.9.9" is not on offer`)
	}
	return s.plan, nil
}

func (s *stand) Approve(_ context.Context, distribution, version string) (string, error) {
	return s.hear("approve", distribution, version, "")
}

func (s *stand) Reject(_ context.Context, distribution, version, reason string) (string, error) {
	return s.hear("reject", distribution, version, reason)
}

func (s *stand) hear(what ...string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Phase != fleet.AwaitingApproval {
		return "", fmt.Errorf("%s: %w; spoke status %[1]s says what runs", what[1], fleet.ErrNothingWaits)
	}
	s.heard = append(s.heard, strings.TrimSpace(strings.Join(what, " ")))
	return s.now.Target, nil
}

func (s *stand) RollBack(_ context.Context, distribution, version, reason string, dry bool) (from, to string, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.now.Canary; c != nil && (version == "" || version == s.now.Running) {
		if !dry {
			s.heard = append(s.heard, "rollback "+s.now.Running+" "+reason)
			s.now.Phase, s.now.Canary, s.now.Reason = fleet.RollingBack, nil, "rolled back by hand"
		}
		return s.now.Target, s.now.Running, nil
	}
	if version == "" {
		version = "1.0.1"
	}
	if version != "1.0.1" && version != "1.0.0" {
		return "", "", fmt.Errorf("%s %s: %w: kept are [1.0.1 1.0.0]", distribution, version, fleet.ErrNothingWaits)
	}
	from = s.now.Running
	if !dry {
		s.heard = append(s.heard, "rollback "+version+" "+reason)
		s.now.Phase, s.now.Running, s.now.Target, s.now.Reason = fleet.RollingBack, version, from, "rolled back by hand"
	}
	return from, version, nil
}

func (s *stand) Pin(_ context.Context, distribution string, p fleet.Pin, dry bool) (fleet.Installation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := s.now
	i.Policy.Pin, i.Wants, i.Would, i.Reason = &p, p.Version, "1.5.0", ""
	switch p.Version {
	case "9.9.9":
		return i, errors.New("pin shop: 9.9.9 is not on offer and does not run; on offer are [1.1.0 1.2.0]")
	case "1.6.0":
		i.Wants, i.Reason = "1.4.0", "1.4.0 on the way to 1.6.0"
	case "1.3.0":
		i.Wants, i.Reason = "", "1.3.0, the pin of spoke, is not taken: 1.3.0 was recalled: it loses orders"
	}
	if !dry {
		s.heard = append(s.heard, strings.TrimSpace(fmt.Sprintf("pin %s %s by %s: %s %s", distribution, p.Version, p.Author, p.Reason, ends(p))))
		s.now.Policy.Pin, s.now.Wants, s.now.Would = i.Policy.Pin, i.Wants, i.Would
	}
	return i, nil
}

func (s *stand) Unpin(_ context.Context, distribution, reason string, dry bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Policy.Pin == nil || s.now.Policy.Pin.Source != fleet.PinSpoke {
		return fmt.Errorf("unpin %s: %w: it is not pinned", distribution, fleet.ErrNothingWaits)
	}
	if !dry {
		s.heard = append(s.heard, "unpin "+distribution+" "+reason)
		s.now.Policy.Pin = nil
	}
	return nil
}

func (s *stand) Steer(_ context.Context, distribution, version string, word fleet.Steer, reason string) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Canary == nil || word == fleet.SteerResume && !s.now.Canary.Held {
		return "", fmt.Errorf("%s: %w; spoke status %[1]s says what is", distribution, fleet.ErrNothingWaits)
	}
	s.heard = append(s.heard, strings.TrimSpace(strings.Join([]string{string(word), version, reason}, " ")))
	return s.now.Target, nil
}

func (s *stand) said() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.heard, "; ")
}

// serve answers for s in a data folder of its own, which the commands of the test find.
func serve(t *testing.T, s *stand) {
	t.Helper()
	dir := t.TempDir()
	t.Setenv(dataVariable, dir)
	ctx, cancel := context.WithCancel(t.Context())
	server := local.New(local.Config{Dir: dir, Agent: s, Hub: s, Log: slog.New(slog.DiscardHandler), ReHome: func() *local.ReHome { return nil },
		Identity: func() (local.Identity, error) {
			return local.Identity{Cluster: "acme/eu-1", Addr: "hub:7443", Via: s.via, NotAfter: moment.Add(time.Hour)}, nil
		}})
	ended := make(chan error, 1)
	go func() { ended <- server.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		c, err := local.Dial(ctx, dir)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

func plans() map[string]fleet.Plan {
	changes := []fleet.KindChange{{Kind: "ConfigMap", Verb: fleet.VerbCreate, Count: 1}, {Kind: "Deployment", Verb: fleet.VerbChange, Count: 1}, {Kind: "Service", Verb: fleet.VerbDelete, Count: 1}}
	steps := []fleet.Step{{Verb: fleet.VerbCreate, Object: "ConfigMap shop/settings"}, {Verb: fleet.VerbChange, Object: "Deployment shop/web"}, {Verb: fleet.VerbDelete, Object: "Service shop/search"}}
	found := func(o fleet.Outcome, r fleet.Reversibility) fleet.Preflight {
		p := fleet.Preflight{Version: "1.2.0", Outcome: o, Reversibility: r, At: moment}
		if o == fleet.OutcomeChanges {
			p.Changes = changes
		}
		return p
	}
	broken := found(fleet.OutcomeBreaks, "")
	broken.Reason = "dry run: Deployment shop/web: spec.selector: field is immutable"
	return map[string]fleet.Plan{
		"same":    {From: "1.1.0", To: "1.2.0", Preflight: found(fleet.OutcomeOk, fleet.Reversible)},
		"changes": {From: "1.1.0", To: "1.2.0", Preflight: found(fleet.OutcomeChanges, fleet.Reversible), Steps: steps},
		"keeping": {From: "1.1.0", To: "1.2.0", Preflight: found(fleet.OutcomeChanges, fleet.ReversibleKeepingCRDs), Steps: steps,
			OneWay: []string{"queues.example.com: v2 is stored, and 1.1.0 does not have it"}},
		"one-way": {From: "1.1.0", To: "1.2.0", Preflight: found(fleet.OutcomeChanges, fleet.OneWay), Steps: steps,
			Adopted: []string{"ConfigMap shop/settings"}, Conflicts: []string{"Deployment shop/web spec.replicas: kubectl"},
			Unchecked: []string{"Queue shop/orders: its CustomResourceDefinition is not there yet"},
			Asks:      []string{"it cannot be gone back from: queues.example.com: v1 is removed"}, OneWay: []string{"queues.example.com: v1 is removed"}},
		"first":  {To: "1.2.0", Preflight: found(fleet.OutcomeChanges, fleet.Reversible), Steps: steps},
		"breaks": {From: "1.1.0", To: "1.2.0", Preflight: broken, Problems: []string{"Deployment shop/web: spec.selector: field is immutable; consent to its recreation in spoke.yaml"}},
	}
}

func TestPlansInEveryFormat(t *testing.T) {
	for _, c := range []struct {
		plan, file, format string
		code               int
	}{
		{"same", "diff-same.txt", "table", exitcode.OK},
		{"changes", "diff-changes.txt", "table", exitcode.Failed},
		{"keeping", "diff-keeping.txt", "wide", exitcode.Failed},
		{"one-way", "diff-one-way.txt", "table", exitcode.Failed},
		{"one-way", "diff.json", "json", exitcode.Failed},
		{"one-way", "diff.yaml", "yaml", exitcode.Failed},
		{"one-way", "diff-name.txt", "name", exitcode.Failed},
		{"first", "diff-first.txt", "table", exitcode.Failed},
		{"breaks", "diff-breaks.txt", "table", exitcode.Usage},
		{"same", "diff-same-name.txt", "name", exitcode.OK},
	} {
		t.Run(c.file, func(t *testing.T) {
			p := plans()[c.plan]
			r := &localv1.PlanResponse{From: p.From, To: p.To, Preflight: wire.Preflight(p.Preflight), Adopted: p.Adopted, Conflicts: p.Conflicts,
				Unchecked: p.Unchecked, Problems: p.Problems, Asks: p.Asks, OneWay: p.OneWay}
			for _, s := range p.Steps {
				r.Steps = append(r.Steps, &localv1.Step{Verb: string(s.Verb), Object: s.Object})
			}
			var out bytes.Buffer
			err := (&app{out: &out, now: func() time.Time { return moment }}).printPlan(&printer.Printer{Out: &out, Format: c.format}, "shop", r)
			if got := exitcode.Of(err); got != c.code || exitcode.Message(err) != "" {
				t.Errorf("exit code %d, want %d; %v", got, c.code, err)
			}
			golden(t, c.file, out.Bytes())
		})
	}
}

func TestDiffAsksTheRunningSpoke(t *testing.T) {
	s := newStand()
	s.plan = plans()["changes"]
	serve(t, s)
	if code, out, text := invoke(t, "diff", "shop"); code != 1 || text != "" || !strings.Contains(out, "1.1.0 -> 1.2.0") || !strings.Contains(out, "Service shop/search") {
		t.Errorf("%d\n%s%s", code, out, text)
	}
	if code, out, text := invoke(t, "diff", "shop", "9.9.9"); code != 2 || out != "" || text != "spoke: diff: shop \"9.9.9\" is not on offer\n" {
		t.Errorf("%d\n%s%s", code, out, text)
	}
}

func TestRenderSaysWhatIsOutside(t *testing.T) {
	serve(t, &stand{})
	if code, out, text := invoke(t, "render", "shop", "6.6.6"); code != 1 || out != "kind: Node\n" || text != "spoke: outside of the envelope: Node n: kind: it has no namespace\n" {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, out, text := invoke(t, "render", "shop", "1.0.0"); code != 0 || out != "# shop 1.0.0\n" || text != "" {
		t.Errorf("%d %s%s", code, out, text)
	}
}

func TestApproveAndReject(t *testing.T) {
	s := newStand()
	serve(t, s)
	for _, verb := range []string{"approve", "reject"} {
		for _, args := range [][]string{{verb, "shop"}, {verb, "shop", "1.2.0", "--dry-run"}} {
			if code, out, text := invoke(t, args...); code != 1 || out != "" || !strings.Contains(text, "nothing to act on") || !strings.Contains(text, "spoke status shop") {
				t.Errorf("%v with nothing to act on: %d %s%s", args, code, out, text)
			}
		}
	}
	if code, _, text := invoke(t, "approve", "mail", "--dry-run"); code != 2 || !strings.Contains(text, "not subscribed to") {
		t.Errorf("%d %s", code, text)
	}
	s.held = []fleet.Held{{Version: "1.0.2", Reason: "it crashed"}, {Version: "1.0.3", Reason: "it leaked"}}
	if code, out, text := invoke(t, "approve", "shop", "1.0.3", "--dry-run"); code != 0 || out != "would approve shop 1.0.3, which is held: it leaked\n" {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, _, text := invoke(t, "approve", "shop", "--dry-run"); code != 1 || !strings.Contains(text, "[1.0.2 1.0.3]") {
		t.Errorf("two are held: %d %s", code, text)
	}
	s.withdrawn = []fleet.Withdrawal{{Version: "1.0.3", Reason: "it loses orders"}}
	if code, out, text := invoke(t, "approve", "shop", "1.0.3", "--dry-run"); code != 1 || out != "" || !strings.Contains(text, "it was withdrawn: it loses orders; spoke status shop") {
		t.Errorf("a withdrawn release: %d %s%s", code, out, text)
	}
	s.withdrawn = nil
	s.now.Phase, s.now.Target, s.now.Reason = fleet.AwaitingApproval, "1.2.0", "it deletes 9 of 24 objects"
	if code, out, text := invoke(t, "status"); code != 4 || !strings.Contains(out, "AwaitingApproval(provider)") || !strings.Contains(out, "it deletes 9 of 24 objects") || !strings.Contains(out, "spoke approve shop 1.2.0") {
		t.Errorf("status: %d\n%s%s", code, out, text)
	}
	if code, out, text := invoke(t, "reject", "shop", "--dry-run"); code != 0 || out != "would reject shop 1.2.0, which waits: it deletes 9 of 24 objects\n" {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, out, text := invoke(t, "approve", "shop"); code != 0 || out != "approved shop 1.2.0\n" || !strings.Contains(text, "spoke status shop") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, out, text := invoke(t, "reject", "shop", "1.2.0", "--reason", "no search"); code != 0 || out != "rejected shop 1.2.0\n" || !strings.Contains(text, "spoke approve shop 1.2.0") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if got := s.said(); got != "approve shop; reject shop 1.2.0 no search" {
		t.Errorf("the spoke heard %s", got)
	}
}

func TestRollback(t *testing.T) {
	t.Run("asks, and says what it would do", func(t *testing.T) {
		s := newStand()
		serve(t, s)
		if code, out, text := invoke(t, "rollback", "shop"); code != 2 || out != "" || !strings.Contains(text, "roll shop back from 1.1.0 to 1.0.1") || !strings.Contains(text, "--yes") {
			t.Errorf("without a terminal: %d %s%s", code, out, text)
		}
		if code, out, text := invoke(t, "rollback", "shop", "--to", "1.0.0", "--dry-run"); code != 0 || out != "would roll shop back from 1.1.0 to 1.0.0\n" || text != "" {
			t.Errorf("dry run: %d %s%s", code, out, text)
		}
		if code, out, text := invoke(t, "rollback", "shop", "--to", "0.1.0", "--yes"); code != 1 || out != "" || !strings.Contains(text, "kept are [1.0.1 1.0.0]") {
			t.Errorf("one that is not kept: %d %s%s", code, out, text)
		}
		if got := s.said(); got != "" {
			t.Errorf("the spoke heard %s", got)
		}
	})
	t.Run("waits until the earlier release runs", func(t *testing.T) {
		s := newStand()
		serve(t, s)
		code, out, text := invoke(t, "rollback", "shop", "--yes", "--reason", "orders are lost")
		if code != 0 || out != "shop runs 1.0.1, rolled back from 1.1.0\n" || !strings.Contains(text, "RollingBack") || !strings.Contains(text, "spoke approve shop 1.1.0") {
			t.Errorf("%d %s%s", code, out, text)
		}
		if got := s.said(); got != "rollback 1.0.1 orders are lost" {
			t.Errorf("the spoke heard %s", got)
		}
	})
	t.Run("says that it failed", func(t *testing.T) {
		s := newStand()
		s.ends = fleet.RollbackFailed
		serve(t, s)
		if code, out, text := invoke(t, "rollback", "shop", "--yes"); code != 1 || out != "" || !strings.Contains(text, "could not go back to 1.0.1") {
			t.Errorf("%d %s%s", code, out, text)
		}
	})
	t.Run("times out", func(t *testing.T) {
		s := newStand()
		s.ends = ""
		serve(t, s)
		if code, out, text := invoke(t, "rollback", "shop", "--yes", "--timeout", "100ms"); code != 3 || out != "" || !strings.Contains(text, "spoke status shop") {
			t.Errorf("%d %s%s", code, out, text)
		}
	})
	t.Run("does not wait where it is told so", func(t *testing.T) {
		s := newStand()
		s.ends = ""
		serve(t, s)
		if code, out, _ := invoke(t, "rollback", "shop", "--yes", "--wait=false"); code != 0 || out != "shop goes back from 1.1.0 to 1.0.1\n" {
			t.Errorf("%d %s", code, out)
		}
	})
}

func TestNamesAreCompleted(t *testing.T) {
	s := newStand()
	s.held = []fleet.Held{{Version: "1.0.2"}}
	s.now.Phase, s.now.Target = fleet.AwaitingApproval, "1.2.0"
	serve(t, s)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"status", ""}, "shop\t1.1.0"},
		{[]string{"diff", ""}, "shop\t1.1.0"},
		{[]string{"diff", "shop", ""}, "1.2.0 1.1.0 1.0.2 1.0.1 1.0.0"},
		{[]string{"render", "shop", ""}, "1.2.0 1.1.0 1.0.2 1.0.1 1.0.0"},
		{[]string{"approve", "shop", ""}, "1.2.0 1.0.2"},
		{[]string{"approve", "mail", ""}, ""},
		{[]string{"rollback", "shop", ""}, ""},
		{[]string{"rollback", "shop", "--to", ""}, "1.0.1 1.0.0"},
	} {
		_, out, _ := invoke(t, append([]string{"__complete"}, c.args...)...)
		lines := strings.Split(strings.TrimSpace(out), "\n")
		if got := strings.Join(lines[:len(lines)-1], " "); got != c.want { // the last line is the directive
			t.Errorf("%v: got %q, want %q", c.args, got, c.want)
		}
	}
}
