// Command demo shows the whole product once, for real: one vendor repository, one hub and three spokes
// on three real API servers with controllers and simulated nodes. It narrates each step, checks what it
// shows, ends with the fleet table and cleans up; exit code 0 means that every step held.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/integration/world"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	d := &demo{begin: time.Now()}
	err := d.run(ctx)
	if cleanErr := d.clean(); err == nil {
		err = cleanErr
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Printf("\ndemo: every step held, %s in all\n", time.Since(d.begin).Round(time.Second))
}

// demo is the stage.
type demo struct {
	begin    time.Time
	dir      string
	clusters *harness.Harness
	vendor   *world.Vendor
	hub      *world.Hub
	spokes   []*world.Spoke
}

const (
	publicURL = "https://git.example.com/vendor/shop" // what the providers' overlays name; nobody reaches it here
	patience  = 2 * time.Minute
)

// providers and what each of them wants.
var providers = []struct{ cluster, env, variant, hpaMin, about string }{
	{"acme/eu-1", "canary", "app-kubernetes", "2", "no mesh, smallest frontend"},
	{"globex/us-1", "production", "app-istio", "3", "Istio, three frontends at least"},
	{"initech/ap-1", "production", "app-linkerd", "4", "Linkerd, four frontends at least"},
}

func (d *demo) run(ctx context.Context) error {
	for _, step := range []struct {
		title string
		do    func(context.Context) error
	}{
		{"Build hub and spoke, start three real clusters", d.stage},
		{"The vendor adds a distribution to a hub", d.addDistribution},
		{"Three providers join, each with a customisation of its own", d.join},
		{"The vendor tags 1.1.0: every cluster runs it", d.firstRelease},
		{"The vendor tags a patch, 1.1.1: it follows", d.patch},
		{"A tag that uses latest, and one that does not build: rejected, they reach nobody", d.reject},
		{"1.3.0 goes out in waves: the canary, then the rest with an approval; one provider is pinned", d.waves},
		{"1.4.0 has no plan, goes to all at once, and never becomes ready: every cluster goes back, whole", d.rollBack},
		{"Hub and a spoke are killed in the middle of the next release: they carry on", d.restart},
		{"The fleet, at the end", d.fleet},
	} {
		begin := time.Now()
		fmt.Printf("\n== %s\n", step.title)
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", strings.ToLower(step.title), err)
		}
		fmt.Printf("   (%.1fs)\n", time.Since(begin).Seconds())
	}
	return nil
}

func say(format string, args ...any) { fmt.Printf("   "+format+"\n", args...) }

func (d *demo) stage(ctx context.Context) error {
	root, err := world.Root()
	if err != nil {
		return err
	}
	if d.dir, err = os.MkdirTemp("", "wheelwright-demo-"); err != nil {
		return err
	}
	bin, err := world.Build(ctx, root, filepath.Join(d.dir, "bin"), false)
	if err != nil {
		return err
	}
	if d.clusters, err = harness.Start(ctx, harness.Options{Clusters: len(providers), Dir: filepath.Join(d.dir, "clusters"), Log: os.Stderr, Controllers: true}); err != nil {
		return err
	}
	if d.vendor, err = world.NewVendor(ctx, filepath.Join(d.dir, "vendor"), filepath.Join(root, "deploy", "examples", "shop")); err != nil {
		return err
	}
	if d.hub, err = world.NewHub(bin, d.dir); err != nil {
		return err
	}
	for i, c := range d.clusters.Clusters() {
		s, err := world.NewSpoke(bin, d.dir, providers[i].cluster, c.Kubeconfig)
		if err != nil {
			return err
		}
		d.spokes = append(d.spokes, s)
		say("cluster for %s: Kubernetes API server with etcd, controllers, scheduler and a simulated node", s.Cluster)
	}
	return d.hub.Start(ctx)
}

// show runs a command of the operator's, shows what it prints, and wants its exit code.
func (d *demo) show(ctx context.Context, code int, args ...string) error {
	fmt.Printf("   $ hub %s\n", commandLine(args))
	r, err := d.hub.Run(ctx, args...)
	if err != nil {
		return err
	}
	fmt.Print(indent(r.Out))
	if r.Code != code {
		return fmt.Errorf("hub %s: exit code %d, want %d: %s", commandLine(args), r.Code, code, r.Err)
	}
	return nil
}

func (d *demo) addDistribution(ctx context.Context) error {
	return d.show(ctx, exitcode.OK, "distribution", "add", "shop", "--git", d.vendor.Dir, "--interval", "1s")
}

func (d *demo) join(ctx context.Context) error {
	for i, s := range d.spokes {
		p := providers[i]
		fmt.Printf("   $ hub cluster invite %s --label env=%s --accept-automatically   …and the provider runs the line that it prints\n", p.cluster, p.env)
		if err := s.Join(ctx, d.hub, "--label", "env="+p.env); err != nil {
			return err
		}
		if err := errors.Join(
			s.Overlay("kustomization.yaml", fmt.Sprintf("apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- %s//dist/%s\npatches:\n- path: hpa.yaml\n", publicURL, p.variant)),
			s.Overlay("hpa.yaml", fmt.Sprintf("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: frontend\nspec:\n  minReplicas: %s\n", p.hpaMin)),
			s.Configure(fmt.Sprintf("- distribution: shop\n  namespace: shop\n  source: [%s]\n  overlay: {path: ./overlay}\n  versions: {range: \"1.x\"}\n", publicURL)),
			s.Start(),
		); err != nil {
			return err
		}
		say("%s joined: %s", p.cluster, p.about)
	}
	return nil
}

// release tags, and says how long the fleet took to get where check wants it.
func (d *demo) release(ctx context.Context, tag, what string, check func(*fleetv1.StatusRow) error) error {
	begin := time.Now()
	fmt.Printf("   $ git tag -a %s\n", tag)
	if err := d.vendor.Release(ctx, tag); err != nil {
		return err
	}
	return d.await(ctx, begin, tag+" "+what, check)
}

func (d *demo) await(ctx context.Context, begin time.Time, what string, check func(*fleetv1.StatusRow) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.hub.AwaitRows(ctx, what, check); err != nil {
		return err
	}
	say("%s on all three clusters, %.1fs after the tag", what, time.Since(begin).Seconds())
	return nil
}

func (d *demo) firstRelease(ctx context.Context) error {
	if err := d.release(ctx, "1.1.0", "runs", world.Runs("1.1.0")); err != nil {
		return err
	}
	return d.customised()
}

// customised looks at the clusters themselves: each has its provider's own HPA minimum.
func (d *demo) customised() error {
	for i, c := range d.clusters.Clusters() {
		got, err := c.Kubectl("-n", "shop", "get", "hpa", "frontend", "-o", "jsonpath={.spec.minReplicas}")
		if err != nil {
			return err
		}
		if strings.TrimSpace(got) != providers[i].hpaMin {
			return fmt.Errorf("%s: the frontend's HPA minimum is %s, its provider set %s", providers[i].cluster, got, providers[i].hpaMin)
		}
		say("%s: kubectl says the frontend's minimum is %s, as its provider set it", providers[i].cluster, strings.TrimSpace(got))
	}
	return nil
}

func (d *demo) patch(ctx context.Context) error {
	if err := d.vendor.Replace("deployment.yaml", ":1.1.0", ":1.1.1"); err != nil {
		return err
	}
	return d.release(ctx, "1.1.1", "runs", world.Runs("1.1.1"))
}

func (d *demo) reject(ctx context.Context) error {
	if err := errors.Join(
		d.vendor.Replace("cache/deployment.yaml", "cache:1.1.1", "cache:latest"),
		d.vendor.Release(ctx, "1.2.0"),
		d.vendor.Write("dist/app-istio/cache/kustomization.yaml", "resources: [../../base/nowhere]\n"),
		d.vendor.Replace("cache/deployment.yaml", "cache:latest", "cache:1.1.1"),
		d.vendor.Release(ctx, "1.2.1"),
	); err != nil {
		return err
	}
	for _, tag := range []string{"1.2.0", "1.2.1"} {
		fmt.Printf("   $ git tag -a %s\n", tag)
		wait, cancel := context.WithTimeout(ctx, patience)
		err := world.Await(wait, "the rejection of "+tag, func(ctx context.Context) error {
			r, err := d.hub.Release(ctx, "shop", tag)
			if err == nil && r.GetPhase() != "Rejected" {
				err = fmt.Errorf("it is %s", r.GetPhase())
			}
			return err
		})
		cancel()
		if err != nil {
			return err
		}
		if err := d.show(ctx, exitcode.OK, "release", "describe", "shop", tag); err != nil {
			return err
		}
	}
	if err := d.vendor.Git(ctx, "checkout", "-q", "1.1.1", "--", "dist"); err != nil {
		return err
	}
	if err := d.hub.AwaitRows(ctx, "1.1.1 to run on", world.Runs("1.1.1")); err != nil {
		return err
	}
	say("all three clusters run 1.1.1 as before")
	return nil
}

func (d *demo) rollBack(ctx context.Context) error {
	if err := errors.Join(
		d.vendor.Replace("deployment.yaml", ":1.3.0", ":1.4.0"),
		d.vendor.Replace("database/deployment.yaml", "/database:", "/database-does-not-exist:"),
	); err != nil {
		return err
	}
	if err := d.release(ctx, "1.4.0", "is rolled back to 1.3.0", world.In("RolledBack", "1.3.0")); err != nil {
		return err
	}
	for i, c := range d.clusters.Clusters() {
		got, err := c.Kubectl("-n", "shop", "get", "deployments", "-o", "jsonpath={.items[*].spec.template.spec.containers[0].image}")
		if err != nil {
			return err
		}
		if n := strings.Count(got, ":1.3.0"); n != 4 {
			return fmt.Errorf("%s: %d of 4 deployments are back on 1.3.0: %s", providers[i].cluster, n, got)
		}
	}
	say("kubectl says all four services of all three clusters are back on 1.3.0")
	return d.show(ctx, exitcode.Failed, "status")
}

func (d *demo) restart(ctx context.Context) error {
	if err := errors.Join(
		d.vendor.Replace("database/deployment.yaml", "/database-does-not-exist:", "/database:"),
		d.vendor.Replace("deployment.yaml", ":1.4.0", ":1.4.1"),
	); err != nil {
		return err
	}
	begin := time.Now()
	fmt.Println("   $ git tag -a 1.4.1")
	if err := d.vendor.Release(ctx, "1.4.1"); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	victim := d.spokes[0]
	if err := d.hub.AwaitRows(wait, "the delivery to start", func(r *fleetv1.StatusRow) error {
		if r.GetTargetVersion() != "1.4.1" {
			return fmt.Errorf("target is %q", r.GetTargetVersion())
		}
		return nil
	}, victim.Cluster); err != nil {
		return err
	}
	if err := errors.Join(victim.Kill(), d.hub.Kill()); err != nil {
		return err
	}
	say("kill -9 of the spoke of %s, and of the hub", victim.Cluster)
	if err := errors.Join(d.hub.Start(ctx), victim.Start()); err != nil {
		return err
	}
	say("both started again")
	return d.await(ctx, begin, "1.4.1 runs", world.Runs("1.4.1"))
}

func (d *demo) fleet(ctx context.Context) error {
	return d.showAll(ctx,
		shown{exitcode.OK, []string{"get", "releases", "shop"}},
		shown{exitcode.OK, []string{"rollout", "history", "shop"}},
		shown{exitcode.OK, []string{"audit", "verify"}},
		shown{exitcode.OK, []string{"status"}},
	)
}

// clean ends everything and removes what was written.
func (d *demo) clean() error {
	var all []error
	for _, s := range d.spokes {
		_, err := s.Stop()
		all = append(all, err)
	}
	if d.hub != nil {
		_, err := d.hub.Stop()
		all = append(all, err)
	}
	if d.clusters != nil {
		all = append(all, d.clusters.Stop())
	}
	if d.dir != "" && os.Getenv("WHEELWRIGHT_KEEP") == "" {
		all = append(all, os.RemoveAll(d.dir))
	} else if d.dir != "" {
		fmt.Println("demo: kept", d.dir)
	}
	return errors.Join(all...)
}
