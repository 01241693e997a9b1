package integration

import (
	"context"
	"regexp"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// Three providers join, each with one line; a used token, a wrong authority and an unknown cluster get
// nothing; a cluster that lost its identity comes back with its workloads untouched.
func TestJoin(t *testing.T) {
	s := tell(t, 2)
	s.watchShop()
	s.release("1.1.0", "Available")

	line, err := s.hub.Must(s.ctx, "cluster", "invite", names[0])
	s.must(err)
	if n := strings.Count(line, "\n"); n != 1 || !strings.HasPrefix(line, "spoke join --hub ") {
		t.Fatalf("invite printed %q on stdout, want the one line to run", line)
	}
	first, second := s.spokes[0], s.spokes[1]
	if r, err := first.RunLine(s.ctx, line); err != nil || r.Code != 0 {
		t.Fatalf("join: %v, %+v", err, r)
	}

	t.Run("nobody is served before both sides compared the key", func(t *testing.T) {
		local, err := first.Run(s.ctx, "status")
		s.must(err)
		key := regexp.MustCompile(`SHA256:[A-Za-z0-9+/]{43}`).FindString(local.Out)
		if key == "" {
			t.Fatalf("spoke status names no key: %s", local.Out)
		}
		out, err := s.hub.Run(s.ctx, "status")
		s.must(err)
		if out.Code != 1 || !strings.Contains(out.Out, "AwaitingAcceptance(vendor)") || !strings.Contains(out.Out, "hub cluster accept "+names[0]+" --fingerprint "+key) {
			t.Errorf("hub status: exit code %d, %s; want it to ask for %s", out.Code, out.Out, key)
		}
		wrong := "SHA256:" + strings.Repeat("A", 42) + "E"
		if r, err := s.hub.Run(s.ctx, "cluster", "accept", names[0], "--fingerprint", wrong); err != nil || r.Code == 0 || !strings.Contains(r.Err, "hub cluster reject") {
			t.Errorf("another fingerprint: %v, %+v", err, r)
		}
		if r, err := s.hub.Run(s.ctx, "cluster", "accept", names[0]); err != nil || r.Code != 2 || !strings.Contains(r.Err, key) || !strings.Contains(r.Err, "--yes") {
			t.Errorf("without a terminal: %v, %+v", err, r)
		}
		s.must(s.customise(first, 0))
		s.must(first.Start()) // before it is accepted: it goes on by itself
		s.must(world.Await(s.patiently(), "the spoke to be told to wait", func(ctx context.Context) error {
			r, err := first.Run(ctx, "status")
			if err == nil && !strings.Contains(r.Out, "waits to be accepted") {
				err = errorf("spoke status: %s", r.Out)
			}
			return err
		}))
		_, err = s.hub.Must(s.ctx, "cluster", "accept", names[0], "--fingerprint", key)
		s.must(err)
		s.runs("1.1.0", names[0])
	})
	t.Run("a token works once", func(t *testing.T) {
		r, err := second.RunLine(s.ctx, line)
		s.must(err)
		if r.Code == 0 || !strings.Contains(r.Err, "used") || !strings.Contains(r.Err, "hub cluster invite") {
			t.Errorf("second use of a token: exit code %d, %q; want a refusal that says used and what to type", r.Code, r.Err)
		}
	})
	t.Run("another authority is not joined", func(t *testing.T) {
		fresh, err := s.hub.Must(s.ctx, "cluster", "invite", names[1])
		s.must(err)
		last := strings.LastIndex(strings.Fields(fresh)[5], ".")
		token := strings.Fields(fresh)[5]
		r, err := second.RunLine(s.ctx, strings.Replace(fresh, token, token[:last+1]+strings.Repeat("0", 64), 1))
		s.must(err)
		if r.Code == 0 || !strings.Contains(r.Err, "pin") {
			t.Errorf("wrong pin: exit code %d, %q", r.Code, r.Err)
		}
	})
	t.Run("who has not joined cannot run", func(t *testing.T) {
		r, err := second.Run(s.ctx, "run", "--config", second.Config)
		s.must(err)
		if r.Code != 2 && r.Code != 1 || !strings.Contains(r.Err, "spoke join") {
			t.Errorf("run before join: exit code %d, %q; want the next command", r.Code, r.Err)
		}
	})

	t.Run("a lost identity comes back and touches nothing", func(t *testing.T) {
		_, err := first.Stop()
		s.must(err)
		before := s.kubectl(0, "-n", "shop", "get", "deployments,services,hpa,configmaps", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
		mark := s.real[0].MarkRequests(t)
		again := respawn(s, first, first.Dir+"-new")
		s.must(again.Join(s.ctx, s.hub))
		s.must(again.Start())
		s.spokes[0] = again
		s.runs("1.1.0", names[0])
		after := s.kubectl(0, "-n", "shop", "get", "deployments,services,hpa,configmaps", "-o", `jsonpath={range .items[*]}{.kind}/{.metadata.name} {.metadata.uid}{"\n"}{end}`)
		for _, r := range s.real[0].Requests(t, mark, "wheelwright") {
			if r.Writes() {
				t.Errorf("the spoke that came back wrote: %s %s", r.Verb, r.URI)
			}
		}
		if before != after {
			t.Errorf("objects changed over a re-join:\nbefore\n%s\nafter\n%s", before, after)
		}
	})
	t.Run("a removed cluster is cut off and keeps its workloads", func(t *testing.T) {
		_, err := s.hub.Must(s.ctx, "cluster", "remove", names[0], "--yes")
		s.must(err)
		out, err := s.hub.Must(s.ctx, "get", "clusters", "-o", "name")
		s.must(err)
		if strings.Contains(out, names[0]) {
			t.Errorf("%s is still listed: %s", names[0], out)
		}
		if got := s.image(0, "frontend"); got == "" {
			t.Error("the removed cluster lost its frontend")
		}
	})
}
