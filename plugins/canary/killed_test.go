package main

import (
	"fmt"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
)

// plots are the releases that every call is killed on.
func plots() []struct {
	name, router string
	build        func(t *testing.T, tag, namespace string) []strategy.Object
} {
	type plot = struct {
		name, router string
		build        func(t *testing.T, tag, namespace string) []strategy.Object
	}
	var out []plot
	for name, router := range map[string]string{"app-kubernetes": strategy.RouterNone, "app-istio": strategy.RouterIstio} {
		out = append(out, plot{name, router, func(t *testing.T, tag, namespace string) []strategy.Object { return variant(t, tag, name, namespace) }})
	}
	for name, router := range map[string]string{"kubernetes": strategy.RouterNone, "istio": strategy.RouterIstio, "gatewayapi:v1": strategy.RouterGatewayAPI, "nginx": strategy.RouterNGINX} {
		out = append(out, plot{"shop-" + router, router, func(t *testing.T, tag, namespace string) []strategy.Object { return shop(t, tag, name, namespace) }})
	}
	return out
}

// Every call, at every step, is killed after each of its requests in turn, and repeated by another
// process: what was led stays whole in between, and the end is that of a call which nobody killed.
func TestKilled(t *testing.T) {
	var cells, left atomic.Int64
	t.Run("calls", func(t *testing.T) {
		for _, plot := range plots() {
			for _, act := range []string{"begin", "advance", "abort", "promote"} {
				t.Run(plot.name+" "+act, func(t *testing.T) {
					t.Parallel()
					s := newStage(t, plot.router)
					st := tell(s, "1.1.0", "1.2.0", plot.build(t, "1.1.0", s.namespace), plot.build(t, "1.2.0", s.namespace))
					k := killing{story: st, cells: &cells}
					defer func() { left.Add(int64(k.left)) }()
					switch act {
					case "begin":
						k.begin()
					case "advance":
						k.advance()
					case "abort":
						k.abortAtEachStep()
					case "promote":
						k.promoteAtTheEnd()
					}
				})
			}
		}
	})
	fmt.Printf("FIGURE canary.plugin-cells %d cells calls killed after a request and repeated, 6 releases, real API server\n", cells.Load())
	fmt.Printf("FIGURE canary.plugin-left %d objects of ours or not as found, over all of them\n", left.Load())
}

// killing counts.
type killing struct {
	*story
	cells *atomic.Int64
	left  int
}

// after each request in turn, or some of them; call tells how many requests there were.
func (k *killing) after(stride int, cell func(after int) (requests int)) {
	if long() {
		stride = 1
	}
	for after := 1; ; after += stride {
		requests := cell(after)
		k.cells.Add(1)
		if requests < after {
			return
		}
	}
}

func (k *killing) wholeAfter(what string, after int) {
	k.Helper()
	if err := k.whole(); err != nil {
		k.left++
		k.Errorf("%s, killed after request %d: %v", what, after, err)
	}
}

// clean counts what is left of ours, or is not as it was found.
func (k *killing) clean(what string, asFound bool) {
	k.Helper()
	if left := k.story.stage.left(); len(left) > 0 {
		k.left += len(left)
		k.Errorf("%s leaves\n%s", what, strings.Join(left, "---\n"))
	}
	if now := k.found(); asFound && now != k.before {
		k.left++
		k.Errorf("%s: not as it was found:\n%s", what, changed(k.before, now))
	}
}

func (k *killing) begin() {
	k.after(9, func(after int) int {
		k.abort(0)
		k.clean("abort", true)
		requests := k.step(0, after)
		k.wholeAfter("the first step", after)
		k.step(0, 0)
		k.repeat("the first step", func(n int) []string { return k.step(0, n) })
		return len(requests)
	})
}

func (k *killing) advance() {
	for n := 1; n < len(k.course.Steps); n++ {
		k.after(1, func(after int) int {
			k.step(n-1, 0)
			requests := k.step(n, after)
			k.wholeAfter(fmt.Sprintf("step %d", n+1), after)
			k.step(n, 0)
			k.repeat("a step", func(cut int) []string { return k.step(n, cut) })
			return len(requests)
		})
	}
}

func (k *killing) abortAtEachStep() {
	for n := range k.course.Steps {
		if last := len(k.course.Steps) - 1; !long() && n != 0 && n != last {
			continue
		}
		k.after(14, func(after int) int {
			k.step(n, 0)
			requests := k.abort(after)
			k.wholeAfter("abort", after)
			k.abort(0)
			k.clean(fmt.Sprintf("abort at step %d, killed after request %d", n+1, after), true)
			return len(requests)
		})
	}
}

func (k *killing) promoteAtTheEnd() {
	k.after(11, func(after int) int {
		k.step(len(k.course.Steps)-1, 0)
		k.apply(k.next)
		requests := k.promote(after)
		k.wholeAfter("promotion", after)
		k.promote(0)
		k.clean(fmt.Sprintf("promotion, killed after request %d", after), false)
		k.settle()
		// The way back to the old release is the spoke's.
		k.apply(k.stable)
		for _, o := range k.next {
			if document.Text(o, "kind") == "ConfigMap" && !has(k.stable, o) {
				if err := k.client.Delete(k.Context(), kube.Resource{APIVersion: "v1", Plural: "configmaps"}, k.namespace, document.Text(o, "metadata", "name"), ""); err != nil {
					k.Fatal(err)
				}
			}
		}
		k.settle()
		return len(requests)
	})
}

func has(objects []strategy.Object, o strategy.Object) bool {
	for _, other := range objects {
		if document.Text(other, "kind") == document.Text(o, "kind") && document.Text(other, "metadata", "name") == document.Text(o, "metadata", "name") {
			return true
		}
	}
	return false
}
