// Command plugin is every plugin that the tests of plugin hosts need: a good one, and bad ones of many
// kinds. Its arguments are what it does and a mark by which tests find the processes that it starts.
package main

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

func main() {
	mode, mark := "good", ""
	if len(os.Args) > 1 {
		mode = os.Args[1]
	}
	if len(os.Args) > 2 {
		mark = os.Args[2]
	}
	switch mode {
	case "sleep":
		signal.Ignore(syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT)
		time.Sleep(5 * time.Minute)
		return
	case "sleep-below": // its parent is gone when it sleeps: a double fork
		spawn(mark, "sleep")
		return
	case "crash-start":
		fmt.Fprintln(os.Stderr, `{"level":"error","msg":"no configuration"}`)
		os.Exit(3)
	case "mute":
		time.Sleep(5 * time.Minute)
	case "chatter":
		fmt.Println("hello, is this thing on?")
		time.Sleep(5 * time.Minute)
	case "wrong-protocol":
		fmt.Println("1|99|unix|/tmp/nowhere|grpc|")
		time.Sleep(5 * time.Minute)
	case "plain":
		fmt.Println("1|1|unix|/tmp/nowhere|grpc|")
		time.Sleep(5 * time.Minute)
	case "deaf": // listens nowhere, though it says so
		fmt.Printf("1|1|tcp|192.0.2.1:80|grpc|\n")
		time.Sleep(5 * time.Minute)
	case "double-fork":
		spawn(mark, "sleep-below")
	case "ignore-term":
		signal.Ignore(syscall.SIGTERM)
		spawn(mark, "sleep")
	case "bomb":
		for range 50 {
			spawn(mark, "sleep")
		}
	}
	p := &plugin{mode: mode, mark: mark}
	pluginsdk.Serve(pluginsdk.Plugin{Name: "example", Version: "0.1.0", Conformance: p, Canary: steps{p}, Notifier: p})
	if mode == "ignore-term" {
		for {
			time.Sleep(time.Minute)
		}
	}
}

// spawn starts a process in a session of its own that nobody waits for.
func spawn(mark, mode string) {
	cmd := exec.Command("/proc/self/exe", mode, mark)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if mode == "sleep-below" {
		cmd.Env = []string{} // no trace of the plugin's folder either
	}
	if err := cmd.Start(); err != nil {
		fmt.Fprintln(os.Stderr, "spawn:", err)
		return
	}
	if mode == "sleep-below" {
		cmd.Wait()
	}
}

type plugin struct {
	mode, mark string
	calls      int
}

func (p *plugin) Describe(context.Context, *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error) {
	r := &pluginv1.DescribeConformanceResponse{Tests: []*pluginv1.Test{{Name: "home", Moment: pluginv1.Moment_MOMENT_BEFORE_TRAFFIC}}}
	if p.mode == "stateful" {
		p.calls++
		r.Tests[0].Name = "home " + strconv.Itoa(p.calls)
	}
	if p.mode == "environment" {
		r.Warnings = os.Environ()
	}
	if p.mode == "kubeconfig" {
		text, err := os.ReadFile(pluginsdk.Kubeconfig())
		r.Warnings = []string{string(text), fmt.Sprint(err)}
	}
	return r, nil
}

func (p *plugin) Run(ctx context.Context, r *pluginv1.RunRequest, tell func(*pluginv1.Progress) error) (*pluginv1.Report, error) {
	switch p.mode {
	case "flood":
		for {
			if err := tell(&pluginv1.Progress{Test: "home", Message: "still here"}); err != nil {
				return nil, err
			}
		}
	case "no-verdict":
		return &pluginv1.Report{Passed: 1}, nil
	case "wrong-verdict":
		return &pluginv1.Report{Verdict: pluginsdk.Pass(1), Failed: 1}, nil
	}
	var suite pluginsdk.Suite
	err := suite.Run(ctx, tell, "home", func(ctx context.Context) *pluginv1.Verdict {
		if len(r.GetSubject().GetServices()) == 0 {
			return pluginsdk.Inconclusive("nothing to look at")
		}
		return pluginsdk.Pass(1)
	})
	return suite.Report(), err
}

func (p *plugin) Notify(ctx context.Context, r *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error) {
	switch p.mode {
	case "crash":
		fmt.Fprintln(os.Stderr, "about to divide by zero")
		os.Exit(7)
	case "panic":
		panic("out of cheese")
	case "hang":
		select {}
	case "slow":
		<-ctx.Done()
		return nil, ctx.Err()
	case "gigabyte":
		line := append(bytes.Repeat([]byte("x"), 1023), '\n')
		for range 1 << 20 {
			os.Stderr.Write(line)
		}
	case "noise":
		os.Stderr.Write(bytes.Repeat([]byte("noise\n"), 1<<18))
	case "log":
		fmt.Fprintln(os.Stdout, "on standard output")
		pluginsdk.Logger().Error("on standard error", "why", "a \x1b[31mred\x1b[0m line")
		time.Sleep(100 * time.Millisecond)
	case "refuse":
		return nil, fmt.Errorf("no channel %q", "#ops")
	}
	return &pluginv1.NotifyResponse{Reference: r.GetEvent().GetId()}, nil
}

type steps struct{ *plugin }

func (s steps) Describe(context.Context, *pluginv1.DescribeCanaryRequest) (*pluginv1.DescribeCanaryResponse, error) {
	return &pluginv1.DescribeCanaryResponse{Strategies: []pluginv1.Strategy{pluginv1.Strategy_STRATEGY_PROGRESSIVE}, Routers: []string{"none"}}, nil
}

func (s steps) Plan(_ context.Context, r *pluginv1.PlanRequest) (*pluginv1.PlanResponse, error) {
	course := &pluginv1.Course{}
	step := &pluginv1.CanaryStep{Number: 1, Passes: 1}
	for _, service := range r.GetSubject().GetServices() {
		course.Leads = append(course.Leads, &pluginv1.Lead{Service: service.GetName(), Strategy: service.GetStrategy(), Router: "none"})
		step.Traffic = append(step.Traffic, &pluginv1.Traffic{Service: service.GetName(), Weight: 50})
	}
	course.Steps = []*pluginv1.CanaryStep{step}
	return &pluginv1.PlanResponse{Course: course}, nil
}

func (s steps) Step(context.Context, *pluginv1.StepRequest) (*pluginv1.StepResponse, error) {
	return &pluginv1.StepResponse{Settled: true}, nil
}

func (s steps) Measure(_ context.Context, r *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error) {
	value, floor := 99.5, 99.0
	v := pluginsdk.Judge("success rate", value, &floor, nil, 0, 1) // there is no traffic here
	m := &pluginv1.Metric{Name: "success rate", Unit: "%", Verdict: v}
	if s.mode == "guess" {
		m.Verdict = pluginsdk.Pass(0)
	}
	return &pluginv1.MeasureResponse{Metrics: []*pluginv1.Metric{m}, Verdict: m.Verdict}, nil
}

func (s steps) Promote(context.Context, *pluginv1.PromoteRequest) (*pluginv1.PromoteResponse, error) {
	return &pluginv1.PromoteResponse{Settled: true}, nil
}

func (s steps) Abort(context.Context, *pluginv1.AbortRequest) (*pluginv1.AbortResponse, error) {
	return &pluginv1.AbortResponse{Settled: true}, nil
}
