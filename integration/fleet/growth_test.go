package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// point is one of what is plotted.
type point struct {
	spokes, distributions int

	stage        *stage
	memory       float64
	cpu, seconds samples
}

// BenchmarkGrowth measures memory, processor time and time to all over the number of spokes, and over that of
// distributions: what the report plots. One figure is printed for each point, of one name. Each point has a hub of its
// own, and they take turns, for a machine is not as fast at all times.
func BenchmarkGrowth(b *testing.B) {
	n := fleetSize(b)
	grow(b, &point{spokes: n / 10, distributions: 1}, &point{spokes: n * 3 / 10, distributions: 1}, &point{spokes: n, distributions: 1})
	grow(b, &point{spokes: n / 10, distributions: 10}) // hubs that poll a hundred repositories are no neighbours
	grow(b, &point{spokes: n / 10, distributions: 100})
}

func grow(b *testing.B, points ...*point) {
	for _, p := range points {
		p.begin(b)
	}
	for round := range rounds(b) {
		for _, p := range points {
			p.measure(fmt.Sprintf("1.%d.0", round+1))
		}
	}
	for _, p := range points {
		p.end()
		at := fmt.Sprintf("spokes=%d distributions=%d", p.spokes, p.distributions)
		figure("growth.memory-mb", p.memory, "MB", "%s, live heap and stacks of the hub", at)
		figure("growth.cpu-s", p.cpu.median(), "s", "%s, the hub's processor time from the first tag stored to the last acknowledged: %v s", at, p.cpu)
		figure("growth.to-all-s", p.seconds.median(), "s", "%s, from the first tag stored to the last acknowledged: %v s", at, p.seconds)
	}
}

func (p *point) begin(b *testing.B) {
	var names []string
	for d := range p.distributions {
		names = append(names, fmt.Sprintf("shop-%d", d))
	}
	p.spokes = max(p.spokes, p.distributions)
	p.stage = setUp(b, p.spokes, stageOptions{}, names...)
	p.stage.release("1.0.0")
	p.stage.connect(p.spokes)
	p.stage.running("1.0.0", p.spokes)
	p.memory = live(p.stage.ctx, b, p.stage.hub.Debug) / (1 << 20)
}

func (p *point) measure(version string) {
	c := clock(p.stage.hub.PID())
	p.stage.release(version)
	end := p.stage.running(version, p.spokes)
	begin := p.stage.firstStored(version)
	p.cpu, p.seconds = append(p.cpu, c.between(begin, end)), append(p.seconds, end.Sub(begin).Seconds())
}

// end leaves the machine to the next.
func (p *point) end() {
	p.stage.must(p.stage.fleet.Disconnect(p.stage.ctx))
	if _, err := p.stage.hub.Stop(); err != nil {
		p.stage.t.Error(err)
	}
}

// firstStored is when the first of the distributions' releases of a version was.
func (s *stage) firstStored(version string) time.Time {
	s.t.Helper()
	var all []time.Time
	for _, d := range s.distributions {
		all = append(all, s.storedOf(d, version))
	}
	return slices.MinFunc(all, time.Time.Compare)
}
