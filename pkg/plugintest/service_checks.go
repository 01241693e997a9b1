package plugintest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// subject is an application that does not exist.
func subject() *pluginv1.Subject {
	manifest := func(version string) []byte {
		return []byte("apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: backend, namespace: plugintest-nowhere}\nspec:\n  selector: {matchLabels: {app: backend}}\n" +
			"  template:\n    metadata: {labels: {app: backend}}\n    spec: {containers: [{name: backend, image: \"backend:" + version + "\"}]}\n")
	}
	return &pluginv1.Subject{
		Distribution: "plugintest", VersionFrom: "1.0.0", VersionTo: "1.1.0", Namespace: "plugintest-nowhere", Cluster: "plugintest/nowhere",
		Services: []*pluginv1.Service{{Name: "backend", Strategy: pluginv1.Strategy_STRATEGY_PROGRESSIVE, Stable: manifest("1.0.0"), Candidate: manifest("1.1.0")}},
	}
}

func (b *bench) call(id string) *pluginv1.Call {
	return &pluginv1.Call{Id: "plugintest-" + id, Deadline: timestamppb.New(time.Now().Add(b.cfg.Timeout))}
}

// answer is what a call came to, in a form that two of them can be compared in.
type answer struct {
	message proto.Message
	err     error
}

func (a answer) String() string {
	if a.err != nil {
		return "error: " + message(a.err)
	}
	return fmt.Sprint(a.message)
}

// equal: both are the same message, or both are errors. The words of an error may carry a time.
func (a answer) equal(b answer) bool {
	if a.err != nil || b.err != nil {
		return status.Code(a.err) == status.Code(b.err)
	}
	return proto.Equal(a.message, b.message)
}

// question is one call, by its name.
type question struct {
	name string
	ask  func(context.Context, *process) answer
}

func to[A proto.Message](a A, err error) answer { return answer{a, err} }

// ask calls within the time that the configuration gives.
func (b *bench) ask(ctx context.Context, p *process, q question) answer {
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	return q.ask(ctx, p)
}

// conformanceQuestions change nothing, with and without a subject.
func (b *bench) conformanceQuestions() []question {
	return []question{
		{"DescribeConformance", func(ctx context.Context, p *process) answer {
			return to(pluginv1.NewConformanceServiceClient(p.conn).DescribeConformance(ctx, &pluginv1.DescribeConformanceRequest{Subject: subject()}))
		}},
		{"Run", func(ctx context.Context, p *process) answer {
			r, _, err := b.run(ctx, p)
			return to(r, err)
		}},
	}
}

func (b *bench) canaryQuestions() []question {
	course := &pluginv1.Course{}
	step := &pluginv1.CanaryStep{Number: 1, Passes: 1, Traffic: []*pluginv1.Traffic{{Service: "backend", Weight: 10}}}
	from, until := timestamppb.New(time.Now().Add(-time.Minute)), timestamppb.Now()
	client := func(p *process) pluginv1.CanaryServiceClient { return pluginv1.NewCanaryServiceClient(p.conn) }
	return []question{
		{"DescribeCanary", func(ctx context.Context, p *process) answer {
			return to(client(p).DescribeCanary(ctx, &pluginv1.DescribeCanaryRequest{}))
		}},
		{"Plan", func(ctx context.Context, p *process) answer {
			return to(client(p).Plan(ctx, &pluginv1.PlanRequest{Call: b.call("plan"), Subject: subject()}))
		}},
		{"Step", func(ctx context.Context, p *process) answer {
			return to(client(p).Step(ctx, &pluginv1.StepRequest{Call: b.call("step"), Subject: subject(), Course: course, Step: step}))
		}},
		{"Measure", func(ctx context.Context, p *process) answer {
			return to(client(p).Measure(ctx, &pluginv1.MeasureRequest{Call: b.call("measure"), Subject: subject(), Course: course, Step: step, From: from, To: until}))
		}},
		{"Follow", func(ctx context.Context, p *process) answer {
			return to(client(p).Follow(ctx, &pluginv1.FollowRequest{Call: b.call("follow"), Subject: subject(), Course: &pluginv1.Course{Follows: true}, Since: from}))
		}},
		{"Promote", func(ctx context.Context, p *process) answer {
			return to(client(p).Promote(ctx, &pluginv1.PromoteRequest{Call: b.call("promote"), Subject: subject(), Course: course}))
		}},
		{"Abort", func(ctx context.Context, p *process) answer {
			return to(client(p).Abort(ctx, &pluginv1.AbortRequest{Call: b.call("abort"), Subject: subject(), Course: course, Reason: "a check"}))
		}},
	}
}

func (b *bench) notify(ctx context.Context, p *process) answer {
	return to(pluginv1.NewNotifierServiceClient(p.conn).Notify(ctx, &pluginv1.NotifyRequest{Call: b.call("notify"), Event: &pluginv1.Event{
		Id: "plugintest-1", At: timestamppb.New(time.Unix(1700000000, 0)), Distribution: "plugintest", VersionTo: "1.1.0", Cluster: "plugintest/nowhere",
		Phase: "Succeeded", Severity: pluginv1.Severity_SEVERITY_INFO, Message: "a check of this plugin", Terminal: true,
	}}))
}

// questions are all that the plugin serves.
func (b *bench) questions(p *process) []question {
	var all []question
	for _, k := range p.hello.GetKinds() {
		switch k {
		case pluginv1.Kind_KIND_CONFORMANCE:
			all = append(all, b.conformanceQuestions()...)
		case pluginv1.Kind_KIND_CANARY:
			all = append(all, b.canaryQuestions()...)
		case pluginv1.Kind_KIND_NOTIFIER:
			all = append(all, question{"Notify", b.notify})
		}
	}
	return all
}

// services: a call of a kind that it did not name is unimplemented, of one that it named is not.
func services(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	for kind, q := range map[pluginv1.Kind]question{
		pluginv1.Kind_KIND_CONFORMANCE: b.conformanceQuestions()[0], pluginv1.Kind_KIND_CANARY: b.canaryQuestions()[0], pluginv1.Kind_KIND_NOTIFIER: {"Notify", b.notify},
	} {
		named := slices.Contains(p.hello.GetKinds(), kind)
		a := b.ask(ctx, p, q)
		if status.Code(a.err) == codes.Unavailable {
			return fmt.Errorf("%s ends it: %s%s", q.name, message(a.err), b.logs.last())
		}
		if missing := status.Code(a.err) == codes.Unimplemented; missing == named {
			return fmt.Errorf("its handshake names %v, and %s says: %s", kindNames(p.hello.GetKinds()), q.name, a)
		}
	}
	return nil
}

func kindNames(kinds []pluginv1.Kind) []string {
	var names []string
	for _, k := range kinds {
		names = append(names, pluginwire.KindName(k))
	}
	return names
}

// unknownFields: a newer host tells more.
func unknownFields(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	request := &pluginv1.HandshakeRequest{Contracts: pluginwire.Contracts(), Plugin: "check"}
	request.ProtoReflect().SetUnknown(protowire.AppendString(protowire.AppendTag(nil, 15000, protowire.BytesType), "from the future"))
	ctx, cancel := context.WithTimeout(ctx, b.cfg.Timeout)
	defer cancel()
	a, err := pluginv1.NewPluginServiceClient(p.conn).Handshake(ctx, request)
	if err != nil {
		return fmt.Errorf("with one more field, Handshake says: %s", message(err))
	}
	a.ProtoReflect().SetUnknown(nil)
	if !proto.Equal(a, p.hello) {
		return fmt.Errorf("with one more field, Handshake answers %v instead of %v", a, p.hello)
	}
	return nil
}

// emptyRequests: an error, or an inconclusive verdict, and no crash.
func emptyRequests(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	for _, k := range p.hello.GetKinds() {
		switch k {
		case pluginv1.Kind_KIND_CONFORMANCE:
			b.ask(ctx, p, question{"Run", func(ctx context.Context, p *process) answer {
				r, _, err := receive(pluginv1.NewConformanceServiceClient(p.conn).Run(ctx, &pluginv1.RunRequest{}))
				return to(r, err)
			}})
		case pluginv1.Kind_KIND_CANARY:
			c := pluginv1.NewCanaryServiceClient(p.conn)
			for _, q := range []question{
				{"Plan", func(ctx context.Context, _ *process) answer { return to(c.Plan(ctx, &pluginv1.PlanRequest{})) }},
				{"Step", func(ctx context.Context, _ *process) answer { return to(c.Step(ctx, &pluginv1.StepRequest{})) }},
				{"Measure", func(ctx context.Context, _ *process) answer { return to(c.Measure(ctx, &pluginv1.MeasureRequest{})) }},
				{"Follow", func(ctx context.Context, _ *process) answer { return to(c.Follow(ctx, &pluginv1.FollowRequest{})) }},
				{"Promote", func(ctx context.Context, _ *process) answer { return to(c.Promote(ctx, &pluginv1.PromoteRequest{})) }},
				{"Abort", func(ctx context.Context, _ *process) answer { return to(c.Abort(ctx, &pluginv1.AbortRequest{})) }},
			} {
				b.ask(ctx, p, q)
			}
		}
	}
	return p.healthy(ctx)
}

// twice asks each question twice of the same process.
func (b *bench) twice(ctx context.Context, p *process, all []question) error {
	for _, q := range all {
		first, second := b.ask(ctx, p, q), b.ask(ctx, p, q)
		if !first.equal(second) {
			return fmt.Errorf("%s, asked twice, answers first %s, then %s", q.name, first, second)
		}
	}
	return nil
}

func conformanceTwice(ctx context.Context, b *bench) error {
	p, err := b.serving(ctx, pluginv1.Kind_KIND_CONFORMANCE)
	if err != nil {
		return err
	}
	return b.twice(ctx, p, b.conformanceQuestions())
}

func canaryTwice(ctx context.Context, b *bench) error {
	p, err := b.serving(ctx, pluginv1.Kind_KIND_CANARY)
	if err != nil {
		return err
	}
	return b.twice(ctx, p, b.canaryQuestions())
}

func notifierTwice(ctx context.Context, b *bench) error {
	p, err := b.serving(ctx, pluginv1.Kind_KIND_NOTIFIER)
	if err != nil {
		return err
	}
	return b.twice(ctx, p, []question{{"Notify", b.notify}})
}

// stateless: another process gives the same answers.
func stateless(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	other, err := b.connect(ctx)
	if err != nil {
		return fmt.Errorf("a second process beside the first: %w", err)
	}
	defer other.kill()
	for _, q := range b.questions(p) {
		first, second := b.ask(ctx, p, q), b.ask(ctx, other, q)
		if !first.equal(second) {
			return fmt.Errorf("%s answers %s, and in a fresh process %s", q.name, first, second)
		}
	}
	return nil
}

// deadlines: calls that nobody waits for any more do no harm to those after them.
func deadlines(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	for _, q := range b.questions(p) {
		late, cancel := context.WithTimeout(ctx, time.Millisecond)
		q.ask(late, p)
		cancel()
	}
	return p.healthy(ctx)
}

// concurrent: health is answered beside other calls.
func concurrent(ctx context.Context, b *bench) error {
	p, err := b.shared(ctx)
	if err != nil {
		return err
	}
	var all sync.WaitGroup
	for _, q := range b.questions(p) {
		all.Go(func() { b.ask(ctx, p, q) })
	}
	defer all.Wait()
	return p.healthy(ctx)
}
