package route_test

import (
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// spoil puts something else in one place of an object that a server would still take, or that somebody
// wrote into the annotation.
func spoil(d *rand.Rand, v any) any {
	odd := []any{nil, "", "web", "{}", `{"original":3,"led":{"a":{"name":"web"}}}`, `{"led":null}`, -1, 2.5, true, []any{}, []any{nil, 1}, []any{map[string]any{}}, map[string]any{}}
	switch v := v.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if d.IntN(len(v)) == 0 {
				v[key] = spoil(d, v[key])
				return v
			}
		}
	case []any:
		if len(v) > 0 && d.IntN(6) > 0 {
			i := d.IntN(len(v))
			v[i] = spoil(d, v[i])
			return v
		}
	}
	return odd[d.IntN(len(odd))]
}

// Whatever a route looks like, there is an answer or a problem, and never a panic.
func TestBrokenRoutes(t *testing.T) {
	files := map[string]string{strategy.RouterGatewayAPI: "gateway.yaml", strategy.RouterLinkerd: "linkerd.yaml", strategy.RouterIstio: "istio.yaml",
		strategy.RouterNGINX: "nginx.yaml", strategy.RouterNone: "none.yaml"}
	for name, f := range files {
		whole, r := file(t, f), router(t, name)
		led := lead(t, r, web, route.Traffic{Weight: 100}, whole)
		for seed := range uint64(1500) {
			d := dice{rand.New(rand.NewPCG(seed, 3))}
			existing := document.Clone(toList(led))
			var spoilt []route.Object
			for _, v := range existing {
				o := v.(map[string]any)
				for range d.IntN(3) {
					if d.maybe() {
						o["spec"] = spoil(d.Rand, o["spec"])
					} else if m := document.Mapping(o, "metadata", "annotations"); m != nil {
						m[route.Annotation] = spoil(d.Rand, m[route.Annotation])
					}
				}
				spoilt = append(spoilt, o)
			}
			for _, traffic := range []route.Traffic{d.traffic(false), {}} {
				if _, err := r.Lead(web, traffic, spoilt); err != nil && err.Error() == "" {
					t.Errorf("%s, seed %d: an error that says nothing", name, seed)
				}
			}
		}
	}
}
