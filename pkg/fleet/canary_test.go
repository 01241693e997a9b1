package fleet

import "testing"

func TestCanariesInWords(t *testing.T) {
	traffic := []Traffic{{Service: "backend", Weight: 20}, {Service: "cache", Weight: 100, Matches: true}, {Service: "search", Weight: 50, Matches: true},
		{Service: "mail", Mirror: 10}, {Service: "web", Weight: 20}}
	for want, c := range map[string]Canary{
		"step 0/3":               {Steps: 3, Traffic: []Traffic{{Service: "backend"}}},
		"step 0/3, held":         {Steps: 3, Held: true},
		"step 1/3":               {Step: 1, Steps: 3},
		"step 2/5, backend 33 %": {Step: 2, Steps: 5, Traffic: []Traffic{{Service: "backend", Weight: 33}}, Gate: GateIncrease},
		"step 2/5, b 33 %, held": {Step: 2, Steps: 5, Traffic: []Traffic{{Service: "b", Weight: 33}}, Held: true},
		"step 3/3, backend, web 20 %; cache what matches; search 50 % of what matches; mail copies of 10 %": {Step: 3, Steps: 3, Traffic: traffic},
	} {
		if got := c.String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
