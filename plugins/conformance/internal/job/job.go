// Package job runs the tests that a release brings as Jobs and Pods: it makes a copy of each under a name
// of its own, waits for its end, reads the logs of those that fail, and takes the copy away again. What a
// killed plugin left is known by its labels and swept at the next run.
//
// It does not judge whether what a test says is true, and it never touches an object without its labels.
package job

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Labels of what is made, on the object and on its pods.
const (
	LabelTests  = "wheelwright.dev/conformance" // the distribution
	LabelRun    = "wheelwright.dev/test-run"
	LabelObject = "wheelwright.dev/test-object" // the copy's name
)

const (
	maxLog      = 16 << 10
	sweepLimit  = 10 * time.Second // of what is done after a test, whatever became of the call
	watchLimit  = time.Minute
	blindPause  = 2 * time.Second // between two looks where watching is not allowed
	spare       = 30              // seconds by which a copy outlives the wait for it, should nobody be left to delete it
	keepSeconds = 600             // for the cluster to clear away a Job that nobody deletes
)

// Runner runs the tests of one call.
type Runner struct {
	Client       *kube.Client
	Redactor     excerpt.Redactor
	Distribution string
	Call         string // the same for a repeat of the same call
	Environment  []Variable
	Hosts        []Host
}

// Variable is put into every container.
type Variable struct{ Name, Value string }

// Host leads names to an address within the test's pods.
type Host struct {
	IP    string
	Names []string
}

// Result is what became of a test.
type Result struct {
	Verdict *pluginv1.Verdict
	Log     string // the end of it, where it did not pass
}

func pass() Result {
	return Result{Verdict: &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS, Sample: 1}}
}

func (r Runner) fail(format string, args ...any) Result {
	return r.result(pluginv1.Outcome_OUTCOME_FAIL, 1, format, args...)
}

func (r Runner) unknown(format string, args ...any) Result {
	return r.result(pluginv1.Outcome_OUTCOME_INCONCLUSIVE, 0, format, args...)
}

func (r Runner) result(o pluginv1.Outcome, sample uint64, format string, args ...any) Result {
	return Result{Verdict: &pluginv1.Verdict{Outcome: o, Sample: sample, Reason: r.Redactor.Line(fmt.Sprintf(format, args...), 400)}}
}

// Sweep takes away what runs before this one left in a namespace, and says how much it was.
func (r Runner) Sweep(ctx context.Context, namespace string) (int, error) {
	swept := 0
	for _, kind := range []kube.Resource{kube.Jobs(), kube.Pods()} {
		left, err := r.Client.List(ctx, kind, namespace, LabelTests+"="+label(r.Distribution)+","+LabelRun+"!="+r.run())
		if err != nil {
			return swept, fmt.Errorf("look for %s that a run before this one left in %s: %w", kind.Plural, namespace, err)
		}
		for _, o := range left {
			if o.Text("metadata", "deletionTimestamp") != "" {
				continue
			}
			if err := r.Client.Delete(ctx, kind, namespace, o.Name(), o.UID()); err != nil {
				return swept, fmt.Errorf("delete %s %s/%s, which a run before this one left: %w", kind.Plural, namespace, o.Name(), err)
			}
			swept++
		}
	}
	return swept, nil
}

// Run runs one test. tell gets a line whenever there is news. However it ends, the copy is deleted.
func (r Runner) Run(ctx context.Context, t Test, tell func(string)) (result Result) {
	limited, cancel := context.WithTimeout(ctx, t.Timeout)
	defer cancel()
	made, err := r.create(limited, t)
	if err != nil {
		return r.notMade(t, err)
	}
	defer func() {
		last, cancel := context.WithTimeout(context.WithoutCancel(ctx), sweepLimit)
		defer cancel()
		if result.Verdict.GetOutcome() != pluginv1.Outcome_OUTCOME_PASS && ctx.Err() == nil {
			result.Log = r.logs(last, t, made)
		}
		if err := r.Client.Delete(last, t.resource(), t.Namespace, made.Name(), made.UID()); err != nil {
			tell(fmt.Sprintf("%s %s/%s is left, for the next run to sweep: %v", t.Kind, t.Namespace, made.Name(), err))
		}
	}()
	tell(fmt.Sprintf("%s %s/%s is made", t.Kind, t.Namespace, made.Name()))
	return r.await(limited, ctx, t, made, tell)
}

func (r Runner) notMade(t Test, err error) Result {
	what := fmt.Sprintf("make %s %s in %s", t.Kind, t.Name, t.Namespace)
	switch {
	case kube.HasCode(err, http.StatusUnprocessableEntity), kube.HasCode(err, http.StatusBadRequest):
		return r.fail("%s: %v", what, err) // it is no valid object, and will not be later
	case kube.HasCode(err, http.StatusForbidden):
		return r.unknown("%s: %v; see permissions of this plugin in spoke.yaml, and quotas", what, err)
	}
	return r.unknown("%s: %v", what, err)
}

// create makes the copy, or finds the one that the same call made before.
func (r Runner) create(ctx context.Context, t Test) (kube.Object, error) {
	wanted := r.copyOf(t)
	for {
		made, err := r.Client.Create(ctx, t.resource(), t.Namespace, wanted)
		if !kube.HasCode(err, http.StatusConflict) {
			return made, err
		}
		there, err := r.Client.Get(ctx, t.resource(), t.Namespace, wanted.Name())
		switch {
		case kube.HasCode(err, http.StatusNotFound):
			continue
		case err != nil:
			return nil, err
		case there.Text("metadata", "labels", LabelRun) != r.run():
			return nil, fmt.Errorf("%s is there and is not a test's", wanted.Name())
		case there.Text("metadata", "deletionTimestamp") == "":
			return there, nil
		}
		if err := r.changed(ctx, t, there); err != nil {
			return nil, err
		}
	}
}

// changed waits for the next state of an object, by looking again where it may not be watched.
func (r Runner) changed(ctx context.Context, t Test, o kube.Object) error {
	if err := r.Client.Changed(ctx, t.resource(), t.Namespace, o.Name(), o.Version(), watchLimit); err != nil {
		return kube.Pause(ctx, blindPause)
	}
	return ctx.Err()
}

// await looks until the copy has ended. limited ends with the test's own time, ctx with the call.
func (r Runner) await(limited, ctx context.Context, t Test, made kube.Object, tell func(string)) Result {
	o, said, started := made, "", false
	for {
		now := look(t.Kind, o)
		started = started || now.started
		switch {
		case now.passed:
			return pass()
		case now.tooLate:
			return r.late(limited, ctx, t, made, started)
		case now.failed:
			return r.fail("%s", now.reason)
		case now.lost:
			return r.unknown("%s", now.reason)
		}
		if now.reason != said && now.reason != "" {
			said = now.reason
			tell(said)
		}
		if r.changed(limited, t, o) != nil {
			return r.late(limited, ctx, t, made, started)
		}
		next, err := r.Client.Get(limited, t.resource(), t.Namespace, made.Name())
		switch {
		case kube.HasCode(err, http.StatusNotFound):
			return r.unknown("somebody deleted %s %s/%s while it ran", t.Kind, t.Namespace, made.Name())
		case err == nil:
			o = next
		case limited.Err() != nil:
			return r.late(limited, ctx, t, made, started)
		case errors.As(err, new(*kube.StatusError)):
			return r.unknown("look at %s %s/%s: %v", t.Kind, t.Namespace, made.Name(), err)
		default: // the API server is away for a while
			if kube.Pause(limited, blindPause) != nil {
				return r.late(limited, ctx, t, made, started)
			}
		}
	}
}

// late tells a test that ran for too long from one that never ran, and both from a call that ended.
func (r Runner) late(limited, ctx context.Context, t Test, made kube.Object, started bool) Result {
	if ctx.Err() != nil {
		return r.unknown("the call ended before the test did")
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(limited), sweepLimit)
	defer cancel()
	pods, err := r.pods(last, t, made)
	waiting := ""
	for _, p := range pods {
		began, why := podStarted(p)
		started = started || began
		waiting = cmp.Or(waiting, why)
	}
	if started {
		return r.fail("no end within %s", t.Timeout)
	}
	if err != nil {
		waiting = err.Error()
	}
	return r.unknown("did not start within %s: %s", t.Timeout, cmp.Or(waiting, "no pod was made"))
}

// copyOf is what is made for a test: its own pods, run once, for no longer than it is waited for.
func (r Runner) copyOf(t Test) kube.Object {
	o := t.object.Clone()
	name := r.nameOf(t)
	labels := map[string]string{LabelTests: label(r.Distribution), LabelRun: r.run(), LabelObject: name}
	metadata := map[string]any{"name": name, "namespace": t.Namespace, "labels": merged(t.object.Texts("metadata", "labels"), labels)}
	if notes := annotations(t.object); len(notes) > 0 {
		metadata["annotations"] = notes
	}
	o["metadata"] = metadata
	delete(o, "status")
	spec, _ := o["spec"].(map[string]any)
	if spec == nil {
		spec = map[string]any{}
		o["spec"] = spec
	}
	limit := int64(math.Ceil(t.Timeout.Seconds())) + spare
	if declared, ok := t.object.Int("spec", "activeDeadlineSeconds"); ok && declared > 0 {
		limit = min(limit, declared)
	}
	spec["activeDeadlineSeconds"] = limit
	pod := spec
	if t.Kind == "Job" {
		delete(spec, "selector")
		delete(spec, "manualSelector")
		delete(spec, "suspend")
		spec["ttlSecondsAfterFinished"] = keepSeconds
		template := mapping(spec, "template")
		below := mapping(template, "metadata")
		have, _ := below["labels"].(map[string]any)
		all := map[string]any{}
		for key, v := range have {
			all[key] = v
		}
		for key, v := range labels {
			all[key] = v
		}
		below["labels"] = all
		pod = mapping(template, "spec")
	}
	// A container that is started anew loses its log, and a Pod that is would never end.
	pod["restartPolicy"] = "Never"
	r.lead(pod)
	return o
}

// lead tells the pod where the candidates are, before anything that its own variables make of it.
func (r Runner) lead(pod map[string]any) {
	for _, key := range []string{"initContainers", "containers"} {
		list, _ := pod[key].([]any)
		for _, item := range list {
			if container, ok := item.(map[string]any); ok {
				container["env"] = r.variables(container["env"])
			}
		}
	}
	if len(r.Hosts) == 0 {
		return
	}
	aliases, _ := pod["hostAliases"].([]any)
	for _, h := range r.Hosts {
		aliases = append(aliases, map[string]any{"ip": h.IP, "hostnames": h.Names})
	}
	pod["hostAliases"] = aliases
}

func (r Runner) variables(have any) []any {
	out := make([]any, 0, len(r.Environment))
	own := map[string]bool{}
	for _, v := range r.Environment {
		out = append(out, map[string]any{"name": v.Name, "value": v.Value})
		own[v.Name] = true
	}
	list, _ := have.([]any)
	for _, item := range list {
		m, _ := item.(map[string]any)
		if name, _ := m["name"].(string); !own[name] {
			out = append(out, item)
		}
	}
	return out
}

func mapping(m map[string]any, key string) map[string]any {
	below, ok := m[key].(map[string]any)
	if !ok {
		below = map[string]any{}
		m[key] = below
	}
	return below
}

func merged(all ...map[string]string) map[string]string {
	out := map[string]string{}
	for _, m := range all {
		for key, v := range m {
			out[key] = v
		}
	}
	return out
}

// run is a label's value for the call.
func (r Runner) run() string { return hash(r.Call) }

// nameOf is the same for a repeat of the call, and nobody else's.
func (r Runner) nameOf(t Test) string {
	const most = 52 // with the dash and the hash behind it less than a label's 63, which pods of Jobs have it in
	base := strings.Trim(t.base[:min(len(t.base), most-11)], "-.")
	return strings.ReplaceAll(base, ".", "-") + "-" + hash(r.Call + "\x00" + t.Namespace + "\x00" + t.Kind + "\x00" + t.base)[:10]
}

var labelForm = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)

func label(text string) string {
	if labelForm.MatchString(text) {
		return text
	}
	return hash(text)
}

func hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return hex.EncodeToString(sum[:8])
}
