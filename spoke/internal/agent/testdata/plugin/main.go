// Command plugin proves releases and tells of them as the files of the folder in its first argument say:
// "mode" what its tests do (1.0.0 passes always), "deaf" how many more times a notifier does not hear. It
// writes down there what it was asked: "runs" and "events".
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func main() {
	p := folder(os.Args[1])
	pluginsdk.Serve(pluginsdk.Plugin{Name: "example", Version: "0.1.0", Conformance: p, Notifier: p})
}

type folder string

func (f folder) read(name string) string {
	text, err := os.ReadFile(filepath.Join(string(f), name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

func (f folder) note(name, format string, args ...any) {
	file, err := os.OpenFile(filepath.Join(string(f), name), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return
	}
	defer file.Close()
	fmt.Fprintf(file, format+"\n", args...)
}

func (f folder) mode(version string) string {
	if version == "1.0.0" {
		return "pass"
	}
	return f.read("mode")
}

func (f folder) Describe(_ context.Context, r *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error) {
	out := &pluginv1.DescribeConformanceResponse{}
	if f.mode(r.GetSubject().GetVersionTo()) != "none" {
		for _, name := range []string{"home", "cart"} {
			out.Tests = append(out.Tests, &pluginv1.Test{Name: name, Moment: pluginv1.Moment_MOMENT_AFTER_PROMOTION})
		}
	}
	return out, nil
}

func (f folder) Run(ctx context.Context, r *pluginv1.RunRequest, tell func(*pluginv1.Progress) error) (*pluginv1.Report, error) {
	s := r.GetSubject()
	names, all := []string{}, s.GetObjects()
	for _, service := range s.GetServices() {
		names = append(names, service.GetName())
		all = append(append(all, service.GetCandidate()...), service.GetStable()...)
	}
	f.note("runs", "%s %s from %q to %s in %s on %s: %s; has a secret: %v, its value: %v; call %s", r.GetMoment(), s.GetDistribution(), s.GetVersionFrom(), s.GetVersionTo(),
		s.GetNamespace(), s.GetCluster(), strings.Join(names, ","), bytes.Contains(all, []byte("kind: Secret")), bytes.Contains(all, []byte("aHVudGVy")), r.GetCall().GetId())
	var suite pluginsdk.Suite
	test := func(name string, v *pluginv1.Verdict) error {
		return suite.Run(ctx, tell, name, func(context.Context) *pluginv1.Verdict { return v })
	}
	mode := f.mode(s.GetVersionTo())
	if mode == "none" {
		return suite.Report(), nil
	}
	err := test("home", pluginsdk.Pass(1))
	for ; mode == "slow"; mode = f.mode(s.GetVersionTo()) {
		select {
		case <-ctx.Done():
			f.note("runs", "cancelled")
			return nil, ctx.Err()
		case <-time.After(10 * time.Millisecond):
		}
	}
	switch mode {
	case "crash":
		fmt.Fprintln(os.Stderr, "out of cheese")
		os.Exit(7)
	case "crash-once":
		os.WriteFile(filepath.Join(string(f), "mode"), []byte("pass"), 0o600)
		os.Exit(7)
	case "hang":
		select {}
	case "fail":
		err = errors.Join(err, tell(&pluginv1.Progress{Test: "cart", State: pluginv1.TestState_TEST_STATE_FAILED, Message: "401 for hunter2-the-password", LogTail: "the test's own words"}),
			test("cart", pluginsdk.Fail(3, "401 for hunter2-the-password")))
	case "unsure":
		err = errors.Join(err, test("cart", pluginsdk.Inconclusive("no traffic")))
	default:
		err = errors.Join(err, test("cart", pluginsdk.Pass(1)))
	}
	return suite.Report(), err
}

func (f folder) Notify(_ context.Context, r *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error) {
	if n, _ := strconv.Atoi(f.read("deaf")); n > 0 {
		os.WriteFile(filepath.Join(string(f), "deaf"), []byte(strconv.Itoa(n-1)), 0o600)
		return nil, errors.New("did not hear")
	}
	e := r.GetEvent()
	f.note("events", "%s %s from %q to %s of %s, terminal %v, %s: %s; commit %d", e.GetPhase(), e.GetSeverity(), e.GetVersionFrom(), e.GetVersionTo(), e.GetRepository(), e.GetTerminal(),
		e.GetVerdict().GetOutcome(), e.GetMessage(), len(e.GetCommit()))
	return &pluginv1.NotifyResponse{}, nil
}
