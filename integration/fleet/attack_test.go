package fleet_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
)

// large is a bundle of which a connection does not take the whole before somebody reads.
const large = 300 << 10

// outcome is what a fleet sees of those that misbehave beside it.
type outcome struct {
	without, with series  // a release to all who behave
	memory        float64 // bytes of the hub's that live, over those without the attackers, for each of them
	count         spokes.Counters
}

// series is how long releases took, and what they used of the processors, in seconds.
type series struct {
	took, hub, spokes samples // spokes: of those who behave
}

func (s series) String() string {
	return fmt.Sprintf("%v s, in which the hub used %v s of processor and those that behave %v s", s.took, s.hub, s.spokes)
}

// attack has a release go to the honest alone, and then beside attackers, so many times each.
func attack(t testing.TB, honest, attackers, times int, m spokes.Manner) (o outcome) {
	t.Helper()
	s := setUp(t, honest+attackers, stageOptions{content: large}, "shop")
	s.release("1.0.0")
	s.stored("1.0.0")
	s.connect(honest)
	s.running("1.0.0", honest)
	n := 0
	once := func() (version string, end time.Time) {
		n++
		version = fmt.Sprintf("1.%d.0", n)
		s.release(version)
		return version, s.running(version, honest)
	}
	timed := func() (all series) {
		for range times {
			hub, fleet := clock(s.hub.PID()), clock(s.fleet.PID())
			version, end := once()
			begin := s.stored(version)
			all.took = append(all.took, end.Sub(begin).Seconds())
			all.hub, all.spokes = append(all.hub, hub.between(begin, end)), append(all.spokes, fleet.between(begin, end))
		}
		return all
	}
	o.without = timed()
	before, pid := live(s.ctx, t, s.hub.Debug), s.hub.PID()
	them := s.more() // a process of their own: those who behave wait for the hub alone
	s.must(them.Attack(s.ctx, honest, honest+attackers, m))
	s.busy(them, attackers)
	o.with = timed()
	o.memory = (live(s.ctx, t, s.hub.Debug) - before) / float64(attackers)
	var err error
	o.count, err = them.Count(s.ctx)
	s.must(err)
	s.profiled("scale.beside-"+m.String(), o.with.took.median(), func() { once() })
	if c := s.count(); s.hub.PID() != pid || c.Connected != honest {
		t.Errorf("%d of %d spokes that behave are connected beside %d that are %v; one ended by: %s", c.Connected, honest, attackers, m, c.Ended)
	}
	return o
}

// A fleet takes its releases, and the hub's memory is bounded, whatever others with good identities do.
func TestSpokesThatMisbehave(t *testing.T) {
	const honest, attackers = 60, 40
	for _, m := range []spokes.Manner{spokes.Deaf, spokes.Hoarder, spokes.Flood, spokes.Liar} {
		t.Run(m.String(), func(t *testing.T) {
			o := attack(t, honest, attackers, 2, m)
			if o.count.Written < attackers {
				t.Errorf("%d messages of %d attackers: they did nothing; the last was cut off by: %s", o.count.Written, attackers, o.count.Repulse)
			}
			// A connection has 63 streams, each of which may hold a window of 64 KiB.
			if most := 63.0 * 64 * (1 << 10); o.memory > most {
				t.Errorf("each of %d attackers costs the hub %.0f KB, at most %.0f are expected", attackers, o.memory/(1<<10), most/(1<<10))
			}
			t.Logf("without %v, with %v, %.0f KB each, %d messages, cut off %d times, the last by: %s", o.without, o.with, o.memory/(1<<10), o.count.Written, o.count.Repelled, o.count.Repulse)
		})
	}
}

// attacked is one figure: how many times as long a release takes to a tenth of the fleet that behaves.
func attacked(b *testing.B, part int, m spokes.Manner) (factor float64, note string) {
	n := fleetSize(b)
	honest := max(1, n/10)
	attackers := max(1, (n-honest)/part)
	o := attack(b, honest, attackers, rounds(b), m)
	return o.with.took.median() / o.without.took.median(), fmt.Sprintf("spokes=%d, a release to %d that behave takes %v; beside %d that are %v %v; the hub has %.0f KB more for each of those, which sent %d messages and were cut off %d times",
		n, honest, o.without, attackers, m, o.with, o.memory/(1<<10), o.count.Written, o.count.Repelled)
}

// BenchmarkDeaf has nine tenths of the fleet never read.
func BenchmarkDeaf(b *testing.B) {
	factor, note := attacked(b, 1, spokes.Deaf)
	figure("scale.beside-deaf", factor, "ratio", "%s", note)
}

// BenchmarkHoarders has some open every stream that they may and read none.
func BenchmarkHoarders(b *testing.B) {
	factor, note := attacked(b, 90, spokes.Hoarder)
	figure("scale.beside-hoarders", factor, "ratio", "%s", note)
}

// BenchmarkFlood has a few send as fast as they can.
func BenchmarkFlood(b *testing.B) {
	factor, note := attacked(b, 900, spokes.Flood)
	figure("scale.beside-flood", factor, "ratio", "%s", note)
}

// BenchmarkLiars has nine tenths of the fleet lie about what they have.
func BenchmarkLiars(b *testing.B) {
	factor, note := attacked(b, 1, spokes.Liar)
	figure("scale.beside-liars", factor, "ratio", "%s", note)
}
