package strategy_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// Values that no field wants, or that some do and others do not.
func odd(d *rand.Rand) any {
	return []any{nil, "", "x", -1, 0, 1.5, 1e300, true, []any{}, []any{nil, "x"}, []any{map[string]any{}}, map[string]any{}, map[string]any{"name": 3}}[d.IntN(13)]
}

// spoil puts an odd value in one place of an object, or takes the place away.
func spoil(d *rand.Rand, v any) any {
	switch v := v.(type) {
	case map[string]any:
		if len(v) == 0 || d.IntN(8) == 0 {
			return odd(d)
		}
		keys := make([]string, 0, len(v))
		for key := range v {
			keys = append(keys, key)
		}
		slices.Sort(keys)
		key := keys[d.IntN(len(keys))]
		if d.IntN(12) == 0 {
			delete(v, key)
		} else {
			v[key] = spoil(d, v[key])
		}
		return v
	case []any:
		if len(v) > 0 && d.IntN(8) > 0 {
			i := d.IntN(len(v))
			v[i] = spoil(d, v[i])
			return v
		}
	}
	return odd(d)
}

const everything = `
  provider: istio
  autoscalerRef: {apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, name: web}
  progressDeadlineSeconds: 90
  analysis:
    interval: 30s
    threshold: 3
    iterations: 4
    match: [{headers: {cookie: {regex: '^a$'}}}]
    sessionAffinity: {cookieName: shop, maxAge: 60}
    metrics:
    - {name: request-success-rate, thresholdRange: {min: 99}, interval: 1m}
    - {name: errors, templateRef: {name: errors, namespace: monitoring}, templateVariables: {a: b}, thresholdRange: {max: 0}}
    webhooks:
    - {name: b, type: pre-rollout, url: http://tester/, timeout: 3m, metadata: {type: bash, cmd: test}, retries: 1}
`

// Whatever is broken in a release's objects: nothing panics, every problem names an object and says
// something, and what is read can be made a candidate of, or that says why not.
func TestBroken(t *testing.T) {
	whole := objects(t, workload("web")+"\n---\n"+canary("v1beta1", "web", everything)+"\n---\n"+strings.Replace(shopService, "port: 80", "port: 9898", 1))
	problems := 0
	for seed := range uint64(4000) {
		d := rand.New(rand.NewPCG(seed, 1))
		all := document.Clone(toAny(whole)).([]any)
		for range 1 + d.IntN(3) {
			i := d.IntN(len(all))
			if o, ok := spoil(d, all[i]).(map[string]any); ok {
				all[i] = o
			}
		}
		spoilt := make([]strategy.Object, len(all))
		for i := range all {
			spoilt[i], _ = all[i].(map[string]any)
		}
		release, err := strategy.Read(spoilt, strategy.Options{})
		if err != nil {
			problems++
			for _, p := range err.(strategy.Problems) {
				if p.Object == "" || p.Message == "" {
					t.Errorf("seed %d: %+v", seed, p)
				}
			}
			continue
		}
		for _, s := range release.Services {
			if c, err := s.MakeCandidate(whole, spoilt, strategy.Making{}); err == nil && (c.Workload == nil || c.Service == nil) {
				t.Errorf("seed %d: half a candidate", seed)
			}
		}
	}
	if problems < 1000 {
		t.Errorf("only %d of 4000 had problems: what is spoilt is not looked at", problems)
	}
}

func toAny(objects []strategy.Object) any {
	var out []any
	for _, o := range objects {
		out = append(out, o)
	}
	return out
}
