package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/wheelwright-dev/wheelwright/integration/world"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
)

// plan is how the vendor wants 1.3.0 to go out. It waits to be started, so that there is time to look.
const plan = `
rollout:
  start: manual
  waves:
  - name: canary
    clusters: {matchLabels: {env: canary}}
    soak: 2s
  - name: everyone
    approval: admin
`

// waves carries a release to one cluster, then to the others once a person says so; one provider does not
// want it yet.
func (d *demo) waves(ctx context.Context) error {
	pinned := d.spokes[len(d.spokes)-1]
	if err := d.provider(ctx, pinned, "pin", "shop", "1.1.1", "--reason", "audit week", "--until", "7d"); err != nil {
		return err
	}
	if err := d.publishPlanned(ctx); err != nil {
		return err
	}
	if err := d.showAll(ctx,
		shown{exitcode.OK, []string{"rollout", "plan", "shop", "1.3.0"}},
		shown{exitcode.OK, []string{"rollout", "start", "shop", "1.3.0", "--reason", "planned for today"}},
		shown{exitcode.OK, []string{"rollout", "wait", "shop", "1.3.0", "--for", "approval", "--timeout", "2m"}},
		shown{exitcode.Waiting, []string{"rollout", "status", "shop"}},
	); err != nil {
		return err
	}
	if err := d.runsNow(ctx, "1.3.0", d.spokes[0]); err != nil {
		return err
	}
	if err := d.runsNow(ctx, "1.1.1", d.spokes[1:]...); err != nil {
		return err
	}
	say("%s runs 1.3.0; the others run 1.1.1 until a person says so", d.spokes[0].Cluster)
	if err := d.showAll(ctx,
		shown{exitcode.OK, []string{"rollout", "approve", "shop", "1.3.0", "--reason", "the canary is well"}},
		shown{exitcode.OK, []string{"rollout", "wait", "shop", "1.3.0", "--for", "healthy", "--timeout", "2m"}},
		shown{exitcode.OK, []string{"rollout", "status", "shop"}},
		shown{exitcode.OK, []string{"get", "pins"}},
	); err != nil {
		return err
	}
	if err := d.runsNow(ctx, "1.1.1", pinned); err != nil {
		return err
	}
	if err := d.provider(ctx, pinned, "unpin", "shop", "--reason", "the audit is over"); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := d.hub.AwaitRows(wait, "1.3.0 to run everywhere", world.Runs("1.3.0")); err != nil {
		return err
	}
	say("%s has caught up: all three clusters run 1.3.0", pinned.Cluster)
	return nil
}

// shown is a command of the operator's and the exit code that it has to have.
type shown struct {
	code int
	args []string
}

func (d *demo) showAll(ctx context.Context, commands ...shown) error {
	for _, c := range commands {
		if err := d.show(ctx, c.code, c.args...); err != nil {
			return err
		}
	}
	return nil
}

// publishPlanned tags 1.3.0 with the plan and waits until it may be started.
func (d *demo) publishPlanned(ctx context.Context) error {
	const file = "dist/wheelwright.yaml"
	said, err := os.ReadFile(filepath.Join(d.vendor.Dir, file))
	if err != nil {
		return err
	}
	fmt.Printf("   dist/wheelwright.yaml at 1.3.0 says:\n%s   $ git tag -a 1.3.0\n", indent(plan[1:]))
	if err := errors.Join(
		d.vendor.Write(file, string(said)+plan),
		d.vendor.Replace("deployment.yaml", ":1.1.1", ":1.3.0"),
		d.vendor.Release(ctx, "1.3.0"),
		d.vendor.Write(file, string(said)),
	); err != nil {
		return err
	}
	wait, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return world.Await(wait, "1.3.0 to be published", func(ctx context.Context) error {
		r, err := d.hub.Release(ctx, "shop", "1.3.0")
		if err == nil && r.GetPhase() != "Available" {
			err = fmt.Errorf("it is %s", r.GetPhase())
		}
		return err
	})
}

// provider runs a command of a provider's, at its own spoke.
func (d *demo) provider(ctx context.Context, s *world.Spoke, args ...string) error {
	fmt.Printf("   %s $ spoke %s\n", s.Cluster, commandLine(args))
	r, err := s.Run(ctx, args...)
	if err == nil && r.Code != exitcode.OK {
		err = fmt.Errorf("spoke %s: exit code %d: %s", args[0], r.Code, r.Err)
	}
	fmt.Print(indent(r.Out))
	return err
}

// runsNow looks once: the spokes run version.
func (d *demo) runsNow(ctx context.Context, version string, spokes ...*world.Spoke) error {
	status, err := d.hub.Status(ctx)
	if err != nil {
		return err
	}
	for _, s := range spokes {
		for _, row := range status.GetRows() {
			if row.GetCluster() == s.Cluster && row.GetRunningVersion() != version {
				return fmt.Errorf("%s runs %s, want %s", s.Cluster, row.GetRunningVersion(), version)
			}
		}
	}
	return nil
}

// commandLine is args as one would type them.
func commandLine(args []string) string {
	typed := make([]string, len(args))
	for i, a := range args {
		if typed[i] = a; strings.Contains(a, " ") {
			typed[i] = "'" + a + "'"
		}
	}
	return strings.Join(typed, " ")
}

// indent puts what a command printed below it.
func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString(strings.TrimRight("     "+line, " \n") + "\n")
	}
	return b.String()
}
