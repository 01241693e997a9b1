// Package plugintest tells a plugin's author whether a built plugin, in whatever language, keeps the
// contract of proto/wheelwright/plugin/v1. It starts the program as a spoke would, but without the
// spoke's walls around it: run it on your own plugins. In a Go test:
//
//	func TestContract(t *testing.T) { plugintest.Run(t, plugintest.Config{Path: "bin/smoke"}) }
//
// and anywhere else `spoke plugin check PATH`.
//
// The checks need no cluster and no release: what a plugin is asked about is an application that does
// not exist. Whether its tests test the right thing, they do not tell. A notifier is told of one event, several
// times over: give it arguments or an environment with which that bothers nobody.
package plugintest

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Config is the plugin, and what it is started with.
type Config struct {
	Path string
	Args []string
	Env  []string // NAME=value, all that it gets beside the handshake's
	// Timeout bounds each call; 0: ten seconds.
	Timeout time.Duration
}

// Result is how one check ended.
type Result struct {
	Name    string
	Problem string // empty: ok
	Skipped string // why it was not tried; empty: it was
	Took    time.Duration
}

// OK says that the check found nothing wrong.
func (r Result) OK() bool { return r.Problem == "" }

func (r Result) String() string {
	took := r.Took.Round(time.Millisecond)
	switch {
	case r.Problem != "":
		return fmt.Sprintf("not ok  %s (%s): %s", r.Name, took, r.Problem)
	case r.Skipped != "":
		return fmt.Sprintf("skip    %s: %s", r.Name, r.Skipped)
	}
	return fmt.Sprintf("ok      %s (%s)", r.Name, took)
}

// reporter is a *testing.T.
type reporter interface {
	Helper()
	Context() context.Context
	Logf(format string, args ...any)
	Errorf(format string, args ...any)
}

// Run runs every check and fails t for each that finds something.
func Run(t reporter, c Config) {
	t.Helper()
	for _, r := range Check(t.Context(), c, nil) {
		if r.OK() {
			t.Logf("%s", r)
		} else {
			t.Errorf("%s", r)
		}
	}
}

// check is one thing that the contract asks for.
type check struct {
	name string
	run  func(context.Context, *bench) error
}

// skip says why a check does not apply.
type skip string

func (s skip) Error() string { return string(s) }

func checks() []check {
	return []check{
		{"says that it is a plugin where nobody started it as one", withoutHost},
		{"starts and shakes hands", handshake},
		{"talks to nobody but its host", strangers},
		{"takes the newest contract that both know", negotiation},
		{"refuses contracts that it does not know", incompatible},
		{"says who it is and what it serves", introduction},
		{"answers about its health within a second", health},
		{"serves what it says, and nothing else", services},
		{"ignores fields that it does not know", unknownFields},
		{"survives requests without content", emptyRequests},
		{"conformance: the same answers to the same questions", conformanceTwice},
		{"conformance: one report, with a verdict of three states", conformanceReport},
		{"canary: the same answers to the same questions", canaryTwice},
		{"canary: no verdict without evidence", canaryEvidence},
		{"canary: aborts what was never begun", canaryAbort},
		{"notifier: the same event twice", notifierTwice},
		{"keeps nothing between calls", stateless},
		{"lives on after missed deadlines", deadlines},
		{"answers while it works", concurrent},
		{"ends within a second of SIGTERM", termination},
		{"leaves no process behind", leftovers},
		{"logs little: less than 1 MiB, lines of at most 8 KiB", logging},
	}
}

// Check runs every check in order and tells each as it ends; tell may be nil. Where the plugin does not
// start, most of them are skipped.
func Check(ctx context.Context, c Config, tell func(Result)) []Result {
	if c.Timeout == 0 {
		c.Timeout = 10 * time.Second
	}
	b := &bench{cfg: c}
	defer b.close()
	var all []Result
	for _, one := range checks() {
		begin := time.Now()
		err := ctx.Err()
		if err == nil {
			err = one.run(ctx, b)
		}
		r := Result{Name: one.name, Took: time.Since(begin)}
		var skipped skip
		switch {
		case errors.As(err, &skipped):
			r.Skipped = string(skipped)
		case err != nil:
			r.Problem = err.Error()
		}
		all = append(all, r)
		if tell != nil {
			tell(r)
		}
	}
	return all
}
