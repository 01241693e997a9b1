package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// Whatever is wrong, the error names the cause, the object and what to do, and nothing is lost.
func TestBadInput(t *testing.T) {
	s := tell(t, 1)
	sp := s.spokes[0]

	hub := func(args ...string) func() (world.Result, error) {
		return func() (world.Result, error) { return s.hub.Run(s.ctx, args...) }
	}
	empty := filepath.Join(s.dir, "empty")
	s.must(os.MkdirAll(empty, 0o755))
	s.must((&world.Vendor{Dir: empty}).Git(s.ctx, "init", "-q"))
	other := filepath.Join(s.dir, "other")

	for _, c := range []struct {
		name string
		run  func() (world.Result, error)
		want []string
	}{
		{"no repository there", hub("distribution", "add", "x", "--git", filepath.Join(s.dir, "nowhere")), []string{"nowhere"}},
		{"an unreachable host", hub("distribution", "add", "x", "--git", "https://127.0.0.1:1/x.git"), []string{"127.0.0.1:1", "git ls-remote"}},
		{"an empty repository", hub("distribution", "add", "x", "--git", empty), []string{"empty"}},
		{"a name that is none", hub("distribution", "add", "No Such", "--git", s.vendor.Dir), []string{`"No Such"`}},
		{"a range that is none", hub("distribution", "add", "x", "--git", s.vendor.Dir, "--tags", "new"), []string{`"new"`}},
		{"a cluster's name that is none", hub("cluster", "invite", "eu-1"), []string{`"eu-1"`, "acme/eu-1"}},
		{"a token that lives too long", hub("cluster", "invite", names[0], "--ttl", "200h"), []string{"168h"}},
		{"one that lets its holder in at once", hub("cluster", "invite", names[0], "--ttl", "1h", "--accept-automatically"), []string{"10m"}},
		{"an unknown release", hub("release", "describe", "shop", "9.9.9"), []string{"shop", "hub get distributions"}},
		{"an unknown format", hub("status", "-o", "xml"), []string{`"xml"`, "json"}},
		{"an unknown command", hub("get", "sandwiches"), []string{"sandwiches", "--help"}},
		{"the port is taken", func() (world.Result, error) {
			return s.hub.Run(s.ctx, "serve", "--data", other, "--listen", s.hub.Addr)
		}, []string{s.hub.Addr, "in use"}},
		{"the data folder is locked", func() (world.Result, error) {
			return s.hub.Run(s.ctx, "serve", "--data", s.hub.Dir, "--listen", "127.0.0.1:0")
		}, []string{s.hub.Dir, "in use by another process"}},
		{"an unknown key in hub.yaml", func() (world.Result, error) {
			file := filepath.Join(s.dir, "hub.yaml")
			s.must(os.WriteFile(file, []byte("version: 1\nlissten: x\nheartbeat: never\n"), 0o644))
			return s.hub.Run(s.ctx, "serve", "--data", other, "--config", file)
		}, []string{"lissten", "heartbeat"}},
		{"a token that is none", func() (world.Result, error) {
			return sp.RunLine(s.ctx, "spoke join --hub "+s.hub.Addr+" --token abc --data x")
		}, []string{"token", "hub cluster invite"}},
		{"a hub that is not there", func() (world.Result, error) {
			line, err := s.hub.Must(s.ctx, "cluster", "invite", names[0])
			s.must(err)
			return sp.RunLine(s.ctx, strings.Replace(line, s.hub.Addr, "127.0.0.1:1", 1))
		}, []string{"127.0.0.1:1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, err := c.run()
			if err != nil {
				t.Fatal(err)
			}
			if r.Code == 0 {
				t.Errorf("exit code 0: %s%s", r.Out, r.Err)
			}
			for _, w := range c.want {
				if !strings.Contains(r.Err, w) {
					t.Errorf("the error does not mention %q:\n%s", w, r.Err)
				}
			}
			if strings.Contains(r.Err, "panic") || strings.Contains(r.Err, "rpc error") {
				t.Errorf("not for people: %s", r.Err)
			}
		})
	}

	t.Run("a distribution without kustomizations", func(t *testing.T) {
		bare := &world.Vendor{Dir: filepath.Join(s.dir, "bare")}
		s.must(bare.Write("dist/readme.md", "nothing to build"))
		s.must(bare.Init(s.ctx, "Start"))
		s.must(bare.Git(s.ctx, "tag", "-a", "1.0.0", "-m", "1.0.0"))
		_, err := s.hub.Must(s.ctx, "distribution", "add", "shop", "--git", bare.Dir, "--interval", "1s")
		s.must(err)
		if r := s.judged("1.0.0", "Rejected"); !strings.Contains(fmt.Sprint(r.GetReasons()), "kustomization") {
			t.Errorf("reasons: %v", r.GetReasons())
		}
	})

	t.Run("releases of 200 MB", func(t *testing.T) {
		large := &world.Vendor{Dir: filepath.Join(s.dir, "large")}
		s.must(large.Write("dist/kustomization.yaml", "resources: []\n"))
		s.must(large.Init(s.ctx, "Start"))
		text := strings.Repeat("a line of a file that nobody needs to deploy anything\n", 200<<20/54)
		s.must(large.Write("dist/one.txt", text))
		s.must(large.Release(s.ctx, "1.0.0"))
		s.must(large.Remove("dist/one.txt"))
		for i := range 100 {
			s.must(large.Write(fmt.Sprintf("dist/%d.txt", i), fmt.Sprint(i)+text[:2<<20]))
		}
		s.must(large.Release(s.ctx, "1.1.0"))
		for i := range 60 {
			s.must(large.Remove(fmt.Sprintf("dist/%d.txt", i)))
		}
		s.must(large.Release(s.ctx, "1.2.0"))
		_, err := s.hub.Must(s.ctx, "distribution", "add", "large", "--git", large.Dir, "--interval", "1s")
		s.must(err)
		for version, why := range map[string]string{"1.0.0": "too large", "1.1.0": "128 MiB", "1.2.0": "more than the 64.0 MiB that a release may have"} {
			s.must(world.Await(s.patiently(), "the judgement of "+version, func(ctx context.Context) error {
				r, err := s.hub.Release(ctx, "large", version)
				if err == nil && (r.GetPhase() != "Rejected" || !strings.Contains(fmt.Sprint(r.GetReasons()), why)) {
					t.Errorf("%s: %s %v", version, r.GetPhase(), r.GetReasons())
				}
				return err
			}))
		}
		peak, err := world.Peak(s.hub.PID())
		s.must(err)
		t.Logf("the hub's peak: %d MB", peak>>20)
		if peak > 512<<20 {
			t.Errorf("judging them took %d MB of memory", peak>>20)
		}
	})

	t.Run("spoke.yaml says all its problems at once", func(t *testing.T) {
		s.must(sp.Join(s.ctx, s.hub))
		s.must(sp.Configure("- distribution: shop\n  varaint: x\n  versions: {range: newest}\n- namespace: y\n"))
		r, err := sp.Run(s.ctx, "run", "--config", sp.Config)
		s.must(err)
		for _, w := range []string{"varaint", "newest", "subscriptions[1].distribution"} {
			if r.Code == 0 || !strings.Contains(r.Err, w) {
				t.Errorf("exit code %d; the error does not mention %q:\n%s", r.Code, w, r.Err)
			}
		}
	})

	t.Run("a damaged database is named and kept", func(t *testing.T) {
		_, err := s.hub.Stop()
		s.must(err)
		file := filepath.Join(s.hub.Dir, "hub.db")
		good, err := os.ReadFile(file)
		s.must(err)
		bad := append([]byte(strings.Repeat("damaged!", 2048)), good[16384:]...)
		s.must(os.WriteFile(file, bad, 0o600))
		r, err := s.hub.Run(s.ctx, "serve", "--data", s.hub.Dir, "--listen", s.hub.Addr)
		s.must(err)
		if r.Code != 1 || !strings.Contains(r.Err, file) || strings.Contains(r.Err, "goroutine") {
			t.Errorf("a damaged database: exit code %d\n%s", r.Code, r.Err)
		}
		after, err := os.ReadFile(file)
		s.must(err)
		if string(after) != string(bad) {
			t.Error("the damaged file was changed")
		}
		s.must(os.WriteFile(file, good, 0o600))
		s.must(s.hub.Start(s.ctx))
		s.judged("1.0.0", "Rejected")
	})
}
