package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// offer reads "1.0.0 1.6.0<1.4.0,1.5.0": releases, and the stops before them.
func offer(text string) []Offered {
	var all []Offered
	for f := range strings.FieldsSeq(text) {
		v, stops, some := strings.Cut(f, "<")
		o := Offered{Version: v}
		if some {
			o.Stops = strings.Split(stops, ",")
		}
		all = append(all, o)
	}
	return all
}

func heldAll(versions ...string) map[string]bool {
	m := map[string]bool{}
	for _, v := range versions {
		m[v] = true
	}
	return m
}

func recalled(version, to string) []Withdrawal {
	return []Withdrawal{{Version: version, Kind: Recalled, Reason: "it loses orders", To: to}}
}

type selectCase struct {
	name   string
	policy Policy
	choice Choice
	want   Selection
}

var (
	now    = time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	many   = offer("1.0.0 1.1.0 1.2.0 2.0.0-rc.1 2.0.0")
	levels = Policy{Patch: Automatic, Minor: AskFirst, Major: NeverTaken}
)

func pinAt(version string) Policy { return Policy{Pin: &Pin{Version: version, Source: PinOverlay}} }

func hubPin(p Policy, version string) Policy {
	p.Pin = &Pin{Version: version, Source: PinHub}
	return p
}

func until(p Policy, t time.Time) Policy {
	pin := *p.Pin
	pin.Until = t
	p.Pin = &pin
	return p
}

func selectCases() []selectCase {
	gone := recalled("1.4.0", "1.3.0")
	undone := []Withdrawal{{Version: "1.4.0", Kind: TakenBack, To: "1.3.0"}}
	const was, rc = "1.4.0 was recalled: it loses orders", "2.0.0-rc.1"
	return []selectCase{
		// A range.
		{"highest without a range", Policy{}, Choice{Offered: many}, Selection{Version: "2.0.0"}},
		{"highest in range", Policy{Range: "1.x"}, Choice{Offered: many}, Selection{Version: "1.2.0"}},
		{"prereleases are left out", Policy{}, Choice{Offered: many[:4]}, Selection{Version: "1.2.0"}},
		{"prereleases for who asks", Policy{Prereleases: true}, Choice{Offered: many[:4]}, Selection{Version: rc}},
		{"held releases are passed over", Policy{}, Choice{Offered: many, Held: heldAll("2.0.0"), Running: "1.2.0"}, Selection{Version: "1.2.0", Why: "2.0.0 is held after it failed here"}},
		{"never down by itself", Policy{}, Choice{Offered: many[:1], Running: "1.2.0"}, Selection{Version: "1.2.0"}},
		{"an empty offer changes nothing", Policy{}, Choice{Running: "1.2.0"}, Selection{Version: "1.2.0"}},
		{"out of range what runs stays", Policy{Range: "~1.1"}, Choice{Offered: many, Running: "1.2.0"}, Selection{Version: "1.2.0"}},
		{"nothing on offer", Policy{}, Choice{}, Selection{Why: "nothing is on offer"}},
		{"nothing in range", Policy{Range: ">=3.0.0"}, Choice{Offered: many}, Selection{Why: `none of 5 releases is in range ">=3.0.0"`}},
		{"first install with all held", Policy{}, Choice{Offered: many[:1], Held: heldAll("1.0.0")}, Selection{Why: "1.0.0 is held after it failed here"}},
		{"what is no version is nothing", Policy{}, Choice{Offered: offer("latest 1.0.0"), Running: "1.0.0"}, Selection{Version: "1.0.0"}},

		// Steps.
		{"a patch is taken by itself", levels, Choice{Offered: offer("1.2.1"), Running: "1.2.0"}, Selection{Version: "1.2.1"}},
		{"a minor is asked for", levels, Choice{Offered: offer("1.3.0"), Running: "1.2.0"},
			Selection{Version: "1.3.0", Asks: "minor upgrade from 1.2.0 needs approval (versions.minor: approve)"}},
		{"a major is left", levels, Choice{Offered: offer("2.0.0"), Running: "1.2.0"}, Selection{Version: "1.2.0", Why: "2.0.0 is not taken (versions.major: never)"}},
		{"what is taken by itself comes before what is asked for", levels, Choice{Offered: offer("1.2.1 1.3.0 2.0.0"), Running: "1.2.0"},
			Selection{Version: "1.2.1", Why: "2.0.0 is not taken (versions.major: never)"}},
		{"and then it is asked for", levels, Choice{Offered: offer("1.2.1 1.3.0"), Running: "1.2.1"},
			Selection{Version: "1.3.0", Asks: "minor upgrade from 1.2.1 needs approval (versions.minor: approve)"}},
		{"the highest of what is asked for", levels, Choice{Offered: offer("1.3.0 1.4.0"), Running: "1.2.1"},
			Selection{Version: "1.4.0", Asks: "minor upgrade from 1.2.1 needs approval (versions.minor: approve)"}},
		{"what is held says more than what is never taken", levels, Choice{Offered: offer("1.3.0 2.0.0"), Held: heldAll("1.3.0"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: "1.3.0 is held after it failed here"}},
		{"a first install is no step", Policy{Patch: NeverTaken, Minor: NeverTaken, Major: NeverTaken}, Choice{Offered: offer("1.0.0 2.0.0")}, Selection{Version: "2.0.0"}},
		{"never a patch", Policy{Patch: NeverTaken}, Choice{Offered: offer("1.2.1 1.3.0"), Running: "1.2.0"}, Selection{Version: "1.3.0"}},
		{"from a prerelease it is a patch", Policy{Patch: AskFirst}, Choice{Offered: offer("1.2.0"), Running: "1.2.0-rc.1"},
			Selection{Version: "1.2.0", Asks: "patch upgrade from 1.2.0-rc.1 needs approval (versions.patch: approve)"}},
		{"a range goes before the steps", Policy{Range: "<2", Major: AskFirst}, Choice{Offered: many, Running: "1.2.0"}, Selection{Version: "1.2.0"}},

		// Stops.
		{"a stop comes first", Policy{}, Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Running: "1.2.0"}, Selection{Version: "1.4.0", Goal: "1.6.0"}},
		{"and the goal after it", Policy{}, Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Running: "1.4.0"}, Selection{Version: "1.6.0"}},
		{"past the stop", Policy{}, Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Running: "1.5.0"}, Selection{Version: "1.6.0"}},
		{"the lowest stop first", Policy{}, Choice{Offered: offer("1.3.0 1.4.0 1.6.0<1.4.0,1.3.0"), Running: "1.2.0"}, Selection{Version: "1.3.0", Goal: "1.6.0"}},
		{"a stop's own stops", Policy{}, Choice{Offered: offer("1.3.0 1.4.0<1.3.0 1.6.0<1.4.0"), Running: "1.2.0"}, Selection{Version: "1.3.0", Goal: "1.6.0"}},
		{"a first install goes straight there", Policy{}, Choice{Offered: offer("1.4.0 1.6.0<1.4.0")}, Selection{Version: "1.6.0"}},
		{"a stop that is not on offer", Policy{}, Choice{Offered: offer("1.6.0<1.4.0"), Running: "1.2.0"}, Selection{Version: "1.2.0", Why: "1.6.0 needs 1.4.0 first, which is not on offer"}},
		{"what needs no stop is taken meanwhile", Policy{}, Choice{Offered: offer("1.3.0 1.6.0<1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.3.0", Why: "1.6.0 needs 1.4.0 first, which is not on offer"}},
		{"a stop that is held", Policy{}, Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Held: heldAll("1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: "1.6.0 needs 1.4.0 first, which is held after it failed here"}},
		{"a stop that was withdrawn", Policy{}, Choice{Offered: offer("1.6.0<1.4.0"), Withdrawn: gone, Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: "1.6.0 needs 1.4.0 first, which is not taken any more: " + was}},
		{"a stop out of range", Policy{Range: ">=1.5"}, Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: `1.6.0 needs 1.4.0 first, which is not in range ">=1.5"`}},
		{"a stop of a step that is never taken", Policy{Minor: NeverTaken}, Choice{Offered: offer("1.9.0 2.0.0<1.9.0"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: "2.0.0 needs 1.9.0 first, which is not taken (versions.minor: never)"}},
		{"a prerelease as a stop", Policy{}, Choice{Offered: offer("2.0.0-rc.1 2.0.0<2.0.0-rc.1"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: "2.0.0 needs 2.0.0-rc.1 first, which is a prerelease"}},
		{"the step to the stop is what is asked for", Policy{Minor: AskFirst}, Choice{Offered: offer("1.4.0 2.0.0<1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.4.0", Goal: "2.0.0", Asks: "minor upgrade from 1.2.0 needs approval (versions.minor: approve)"}},
		{"the stop is taken by itself and the goal asked for", Policy{Major: AskFirst}, Choice{Offered: offer("1.4.0 2.0.0<1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.4.0", Goal: "2.0.0"}},

		// Withdrawn.
		{"what was withdrawn is not taken", Policy{}, Choice{Offered: offer("1.3.0 1.4.0"), Withdrawn: gone, Running: "1.2.0"}, Selection{Version: "1.3.0"}},
		{"nor at first", Policy{}, Choice{Offered: offer("1.4.0"), Withdrawn: gone}, Selection{Why: was}},
		{"nothing but nothing", Policy{}, Choice{Offered: []Offered{{}}}, Selection{Why: "what is on offer names no version"}},
		{"nothing but a prerelease", Policy{}, Choice{Offered: offer("2.0.0-rc.1")}, Selection{Why: "2.0.0-rc.1 is a prerelease"}},
		{"it runs, and goes where it is told", Policy{}, Choice{Offered: offer("1.3.0"), Withdrawn: gone, Running: "1.4.0"}, Selection{Version: "1.3.0", Why: was, Return: true}},
		{"where it goes need not be on offer", Policy{}, Choice{Withdrawn: undone, Running: "1.4.0"}, Selection{Version: "1.3.0", Why: "the rollout of 1.4.0 was undone", Return: true}},
		{"it runs, and there is nowhere to go", Policy{}, Choice{Offered: offer("1.3.0"), Withdrawn: recalled("1.4.0", ""), Running: "1.4.0"}, Selection{Version: "1.4.0", Why: was}},
		{"where to go is out of range", Policy{Range: ">=1.4"}, Choice{Offered: offer("1.3.0"), Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.4.0", Why: was + `; 1.3.0, the release to go to, is not in range ">=1.4"`}},
		{"where to go is held", Policy{}, Choice{Withdrawn: gone, Held: heldAll("1.3.0"), Running: "1.4.0"},
			Selection{Version: "1.4.0", Why: was + "; 1.3.0, the release to go to, is held after it failed here"}},
		{"where to go was withdrawn too", Policy{}, Choice{Withdrawn: append(recalled("1.3.0", ""), gone...), Running: "1.4.0"},
			Selection{Version: "1.4.0", Why: was + "; 1.3.0, the release to go to, was withdrawn too: 1.3.0 was recalled: it loses orders"}},
		{"where to go is a step that is never taken", Policy{Minor: NeverTaken}, Choice{Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.4.0", Why: was + "; 1.3.0, the release to go to, is not taken (versions.minor: never)"}},
		{"the provider is asked about the step back", levels, Choice{Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.3.0", Why: was, Return: true, Asks: "minor step back from 1.4.0 needs approval (versions.minor: approve)"}},
		{"a newer release goes before the way back", Policy{}, Choice{Offered: offer("1.3.0 1.4.1"), Withdrawn: gone, Running: "1.4.0"}, Selection{Version: "1.4.1"}},
		{"a newer one that is asked for does not", Policy{Major: AskFirst}, Choice{Offered: offer("1.3.0 2.0.0"), Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.3.0", Why: was, Return: true}},
		{"unless the way back is asked for too", levels, Choice{Offered: offer("1.3.0 1.5.0"), Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.5.0", Why: was, Asks: "minor upgrade from 1.4.0 needs approval (versions.minor: approve)"}},
		{"or there is none", levels, Choice{Offered: offer("1.3.0 1.5.0"), Withdrawn: recalled("1.4.0", ""), Running: "1.4.0"},
			Selection{Version: "1.5.0", Why: was, Asks: "minor upgrade from 1.4.0 needs approval (versions.minor: approve)"}},
		{"a newer one out of range does not help", Policy{Range: "<1.4.1"}, Choice{Offered: offer("1.3.0 1.4.1"), Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.3.0", Why: was, Return: true}},
		{"a newer one whose stop is missing does not help", Policy{}, Choice{Offered: offer("1.3.0 1.6.0<1.5.0"), Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.3.0", Why: was, Return: true}},
		{"after the return it is not taken again", Policy{}, Choice{Offered: offer("1.3.0"), Withdrawn: gone, Running: "1.3.0"}, Selection{Version: "1.3.0"}},

		// Pins.
		{"a pin wins over newer ones", pinAt("1.0.0"), Choice{Offered: many, Running: "1.2.0"}, Selection{Version: "1.0.0", Would: "2.0.0"}},
		{"a pin wins over range and steps", Policy{Range: "1.x", Major: NeverTaken, Pin: pinAt("2.0.0").Pin}, Choice{Offered: many, Running: "1.2.0"},
			Selection{Version: "2.0.0", Would: "1.2.0"}},
		{"the same without the pin", pinAt("2.0.0"), Choice{Offered: many, Running: "1.2.0"}, Selection{Version: "2.0.0"}},
		{"a pin to what is not there", pinAt("3.0.0"), Choice{Offered: many, Running: "1.2.0"}, Selection{Why: "3.0.0, the pin of overlay, is not on offer", Would: "2.0.0"}},
		{"a pin to what runs and is off the offer", pinAt("1.2.0"), Choice{Offered: many[4:], Running: "1.2.0"}, Selection{Version: "1.2.0", Would: "2.0.0"}},
		{"a pin that is over is none", until(pinAt("1.0.0"), now), Choice{Offered: many, Running: "1.2.0"}, Selection{Version: "2.0.0"}},
		{"a pin that is not over yet", until(pinAt("1.0.0"), now.Add(time.Second)), Choice{Offered: many, Running: "1.0.0"}, Selection{Version: "1.0.0", Would: "2.0.0"}},
		{"a pin to what was withdrawn", pinAt("1.4.0"), Choice{Offered: offer("1.3.0 1.4.0"), Withdrawn: gone, Running: "1.2.0"},
			Selection{Why: "1.4.0, the pin of overlay, is not taken: " + was, Would: "1.3.0"}},
		{"a pin to what was withdrawn and runs", pinAt("1.4.0"), Choice{Offered: offer("1.3.0"), Withdrawn: gone, Running: "1.4.0"},
			Selection{Version: "1.4.0", Why: was + "; the pin of overlay keeps it", Would: "1.3.0"}},
		{"a pin out of what was withdrawn", pinAt("1.3.0"), Choice{Offered: offer("1.3.0"), Withdrawn: gone, Running: "1.4.0"}, Selection{Version: "1.3.0"}},
		{"a pin beyond a stop", pinAt("1.6.0"), Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Running: "1.2.0"}, Selection{Version: "1.4.0", Goal: "1.6.0"}},
		{"a pin beyond a stop that is missing", pinAt("1.6.0"), Choice{Offered: offer("1.6.0<1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: "1.6.0 needs 1.4.0 first, which is not on offer"}},
		{"a pin down again needs no stop", pinAt("1.2.0"), Choice{Offered: offer("1.2.0<1.1.0 1.6.0<1.4.0"), Running: "1.6.0"}, Selection{Version: "1.2.0", Would: "1.6.0"}},
		{"the hub's pin holds back", hubPin(Policy{}, "1.0.0"), Choice{Offered: many, Running: "1.0.0"}, Selection{Version: "1.0.0", Would: "2.0.0"}},
		{"the hub's pin stays in range", hubPin(Policy{Range: "1.x"}, "2.0.0"), Choice{Offered: many, Running: "1.2.0"},
			Selection{Why: `2.0.0, the pin of hub, is not in range "1.x"`, Would: "1.2.0"}},
		{"the hub's pin goes no step that is never taken", hubPin(levels, "2.0.0"), Choice{Offered: many, Running: "1.2.0"},
			Selection{Why: "2.0.0, the pin of hub, is not taken (versions.major: never)", Would: "1.2.0"}},
		{"the hub's pin is asked for where the step is", hubPin(levels, "1.1.0"), Choice{Offered: many, Running: "1.2.0"},
			Selection{Version: "1.1.0", Would: "1.2.0", Asks: "minor step back from 1.2.0 needs approval (versions.minor: approve)"}},
		{"the hub's pin beyond a stop that is out of range", hubPin(Policy{Range: ">=1.5"}, "1.6.0"), Choice{Offered: offer("1.4.0 1.6.0<1.4.0"), Running: "1.2.0"},
			Selection{Version: "1.2.0", Why: `1.6.0 needs 1.4.0 first, which is not in range ">=1.5"`}},
		{"what is older than what ran healthy here is not taken", Policy{}, Choice{Offered: offer("1.1.0"), Running: "1.0.0", Floor: "1.2.0"},
			Selection{Version: "1.0.0", Why: "1.1.0 is older than 1.2.0, which ran healthy here"}},
		{"nor at first", Policy{}, Choice{Offered: offer("1.1.0"), Floor: "1.2.0"}, Selection{Why: "1.1.0 is older than 1.2.0, which ran healthy here"}},
		{"what ran healthy itself is", Policy{}, Choice{Offered: offer("1.1.0 1.2.0"), Running: "1.0.0", Floor: "1.2.0"}, Selection{Version: "1.2.0"}},
		{"but by the provider's own pin", pinAt("1.1.0"), Choice{Offered: offer("1.1.0 1.2.0"), Running: "1.2.0", Floor: "1.2.0", AskBack: true}, Selection{Version: "1.1.0", Would: "1.2.0"}},
		{"not by the hub's, where its word is not enough", hubPin(Policy{}, "1.1.0"), Choice{Offered: offer("1.1.0 1.2.0"), Running: "1.2.0", Floor: "1.2.0", AskBack: true},
			Selection{Why: "1.1.0, the pin of hub, is older than 1.2.0, which ran healthy here; only a pin or a rollback of your own goes there", Would: "1.2.0"}},
		{"by the hub's, where it is", hubPin(Policy{}, "1.1.0"), Choice{Offered: offer("1.1.0 1.2.0"), Running: "1.2.0", Floor: "1.2.0"}, Selection{Version: "1.1.0", Would: "1.2.0"}},
		{"the way back is asked for where the hub's word is not enough", Policy{}, Choice{Withdrawn: gone, Running: "1.4.0", Floor: "1.4.0", AskBack: true},
			Selection{Version: "1.3.0", Why: was, Return: true, Asks: "going back from 1.4.0 to 1.3.0 is the hub's word alone and needs approval (fromHub.rollbacks: false)"}},
		{"a pin at first goes straight there", pinAt("1.6.0"), Choice{Offered: offer("1.6.0<1.4.0")}, Selection{Version: "1.6.0"}},
		{"a pin holds what is held too", pinAt("2.0.0"), Choice{Offered: many, Held: heldAll("2.0.0"), Running: "1.2.0"}, Selection{Version: "2.0.0", Would: "1.2.0"}},
	}
}

func TestSelect(t *testing.T) {
	for _, c := range selectCases() {
		t.Run(c.name, func(t *testing.T) {
			c.choice.Now = now
			got, err := c.policy.Select(c.choice)
			if err != nil {
				t.Fatal(err)
			}
			if got != c.want {
				t.Errorf("\ngot  %+v\nwant %+v", got, c.want)
			}
		})
	}
	if _, err := (Policy{Range: "one"}).Select(Choice{Offered: many}); err == nil {
		t.Error("a range that is none: want an error")
	}
}

// What holds of every selection, over all policies, offers and withdrawals of a small world.
func TestSelectHoldsItsPromises(t *testing.T) {
	versions := []string{"1.0.0", "1.0.1", "1.1.0", "2.0.0"}
	ups := []Upgrade{Automatic, AskFirst, NeverTaken}
	cases := 0
	for bits := range 1 << (3 * len(versions)) {
		c := Choice{Now: now, Held: map[string]bool{}}
		withdrawn := map[string]bool{}
		for n, v := range versions {
			if bits>>(3*n)&1 == 1 {
				c.Offered = append(c.Offered, Offered{Version: v, Stops: versions[:n]})
			}
			if bits>>(3*n+1)&1 == 1 {
				c.Withdrawn, withdrawn[v] = append(c.Withdrawn, Withdrawal{Version: v, To: versions[(n+3)%4]}), true
			}
			c.Held[v] = bits>>(3*n+2)&1 == 1
		}
		for n, running := range append([]string{""}, versions...) {
			c.Running = running
			for _, p := range []Policy{{Minor: ups[bits%3], Major: ups[(bits/3+n)%3]}, {Range: "1.x"}, pinAt(versions[(bits+n)%4])} {
				cases++
				s, err := p.Select(c)
				if err != nil {
					t.Fatal(err)
				}
				say := func(what string) { t.Errorf("%s: %+v of %+v by %+v", what, s, c, p) }
				switch {
				case s.Version == "" || s.Version == running:
					if s.Return || s.Asks != "" {
						say("it goes nowhere, and asks or returns")
					}
					continue
				case withdrawn[s.Version]:
					say("it goes to what was withdrawn")
				case c.Held[s.Version] && p.Pin == nil:
					say("it goes to what is held")
				case p.Pin != nil && s.Version != p.Pin.Version && s.Goal != p.Pin.Version:
					say("it leaves its pin")
				case p.Range != "" && s.Version == "2.0.0":
					say("it leaves its range")
				case running != "" && p.Pin == nil && CompareTags(s.Version, running) < 0 && !s.Return:
					say("it goes down")
				case s.Return && !withdrawn[running]:
					say("it returns from what was not withdrawn")
				}
				if name, u := p.step(running, s.Version); p.Pin == nil && running != "" && (u == NeverTaken || (u == AskFirst) != (s.Asks != "")) {
					say("a " + name + " step against the policy")
				}
			}
		}
	}
	t.Logf("%d selections", cases)
}

func BenchmarkSelect(b *testing.B) {
	var text []string
	for n := range 50 {
		text = append(text, fmt.Sprintf("1.%d.0", n))
	}
	for name, running := range map[string]string{"behind": "1.40.0", "up to date": "1.49.0"} {
		b.Run(name, func(b *testing.B) {
			c := Choice{Now: now, Offered: offer(strings.Join(text, " ")), Running: running}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := (Policy{Range: "1.x"}).Select(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
