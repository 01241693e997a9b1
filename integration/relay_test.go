package integration

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// Two spokes live behind a relay: they join through it and are offered a release. It is killed,
// and so is the hub; one of them goes around it and back; the authority is rotated; and in the end it is removed.
func TestSpokesBehindARelay(t *testing.T) {
	bin, err := binaries()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	s := &story{t: t, dir: t.TempDir(), ctx: ctx, bin: bin}
	s.hub, err = world.NewHub(bin, s.dir)
	s.must(err)
	t.Cleanup(s.end)
	s.must(s.hub.Configure("heartbeat: 1s\n"))
	s.must(s.hub.Start(ctx))
	root, err := world.Root()
	s.must(err)
	s.vendor, err = world.NewVendor(ctx, filepath.Join(s.dir, "vendor"), filepath.Join(root, "deploy", "examples", "shop"))
	s.must(err)
	s.watchShop()
	hub := func(args ...string) string {
		t.Helper()
		out, err := s.hub.Must(ctx, args...)
		s.must(err)
		return out
	}

	if r, err := s.hub.Run(ctx, "relay", "invite", "fra-1", "--host", "127.0.0.1"); err != nil || r.Code != 1 || !strings.Contains(r.Err, "the hub's own") {
		t.Errorf("a relay of the hub's own address: %v, %+v", err, r)
	}
	relay, err := world.NewRelay(ctx, bin, s.dir, "fra-1", s.hub)
	s.must(err)
	s.must(relay.Start(ctx))
	t.Cleanup(func() {
		if _, err := relay.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("relay:\n%s", world.Tail(relay.Log, 40))
		}
	})
	kubeconfig := filepath.Join(s.dir, "kubeconfig")
	s.must(os.WriteFile(kubeconfig, []byte(nowhere), 0o600))
	for _, name := range names[:2] {
		sp, err := world.NewSpoke(bin, s.dir, name, kubeconfig)
		s.must(err)
		s.must(sp.Configure("- {distribution: shop, variant: app-kubernetes, namespace: shop, versions: {range: \"1.x\"}}\n"))
		line := strings.TrimSpace(hub("cluster", "invite", name, "--accept-automatically"))
		r, err := sp.RunLine(ctx, line+" --via "+relay.Addr)
		if err != nil || r.Code != 0 {
			t.Fatalf("spoke join --via: %v, %+v", err, r)
		}
		s.must(sp.Start())
		s.spokes = append(s.spokes, sp)
	}
	// carried waits until the relay carries so many spokes, and the hub has so many connected.
	carried := func(what string, behind, connected int) {
		t.Helper()
		s.must(world.Await(s.patiently(), what, func(ctx context.Context) error {
			relays, err := s.hub.Must(ctx, "get", "relays", "--no-headers")
			if err != nil {
				return err
			}
			clusters, err := s.hub.Must(ctx, "get", "clusters", "--no-headers")
			if err != nil {
				return err
			}
			if f := strings.Fields(relays); len(f) < 3 || f[1] != "Connected" || f[2] != fmt.Sprint(behind) || strings.Count(clusters, "Connected") != connected {
				return errorf("%s%s", relays, clusters)
			}
			return nil
		}))
	}
	carried("both to be there, through the relay", 2, 2)
	s.release("1.1.0", "Available")
	for _, sp := range s.spokes {
		s.must(world.Await(s.patiently(), sp.Cluster+" to take what it is offered", func(context.Context) error {
			log, err := os.ReadFile(sp.Log)
			if err == nil && strings.Count(string(log), "the hub's offer was taken") < 2 { // of no release, and of this one
				err = errorf("the log of %s does not say it", sp.Cluster)
			}
			return err
		}))
	}

	s.must(relay.Kill())
	s.must(world.Await(s.patiently(), "the hub to notice", func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "get", "clusters", "--no-headers")
		if err == nil && strings.Contains(out, "Connected") {
			err = errorf("%s", out)
		}
		return err
	}))
	s.must(relay.Start(ctx))
	carried("both to come back to a relay that was killed", 2, 2)
	s.must(s.hub.Kill())
	s.must(s.hub.Start(ctx))
	carried("both to come back to a hub that was killed", 2, 2)

	if r, err := s.spokes[1].Run(ctx, "via", "--direct"); err != nil || r.Code != 0 || !strings.Contains(r.Out, "directly") {
		t.Fatalf("%v, %+v", err, r)
	}
	carried("one to go around the relay", 1, 2)
	if r, err := s.spokes[1].Run(ctx, "via", relay.Addr); err != nil || r.Code != 0 || !strings.Contains(r.Out, relay.Addr) {
		t.Fatalf("%v, %+v", err, r)
	}
	carried("it to come back", 2, 2)

	hub("authority", "rotate", "--reason", "it is time", "--yes")
	s.must(world.Await(s.patiently(), "spokes and relay to follow the new key", func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "authority", "status")
		if err == nil && !strings.Contains(out, "2 of 2 clusters, 1 of 1 relay") {
			err = errorf("hub authority status: %s", out)
		}
		return err
	}))
	hub("auth", "renew")
	hub("authority", "retire", "--reason", "everybody follows", "--yes")
	s.must(relay.Kill())
	s.must(relay.Start(ctx))
	carried("both to be there under the new key", 2, 2)

	hub("relay", "remove", "fra-1", "--reason", "the story ends", "--yes")
	s.must(world.Await(s.patiently(), "the spokes of a removed relay to be away", func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "get", "clusters", "--no-headers")
		if err == nil && strings.Contains(out, "Connected") {
			err = errorf("%s", out)
		}
		return err
	}))
	s.must(world.Await(s.patiently(), "a spoke to say why", func(context.Context) error {
		log, err := os.ReadFile(s.spokes[0].Log)
		if err == nil && !strings.Contains(string(log), "its relay was removed") {
			err = errorf("the log of %s does not say it", s.spokes[0].Cluster)
		}
		return err
	}))
	for _, sp := range s.spokes {
		if r, err := sp.Run(ctx, "via", "--direct"); err != nil || r.Code != 0 {
			t.Fatalf("%v, %+v", err, r)
		}
	}
	s.must(world.Await(s.patiently(), "both to be there without it", func(ctx context.Context) error {
		out, err := s.hub.Must(ctx, "get", "clusters", "--no-headers")
		if err == nil && strings.Count(out, "Connected") != 2 {
			err = errorf("%s", out)
		}
		return err
	}))
}
