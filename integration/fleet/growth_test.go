package fleet_test

import (
	"fmt"
	"slices"
	"testing"
	"time"
)

// BenchmarkGrowth measures memory, processor time and time to all over the number of spokes, and over that of
// distributions: what the report plots. One figure is printed for each point, of one name.
func BenchmarkGrowth(b *testing.B) {
	n := fleetSize(b)
	for _, at := range []struct{ spokes, distributions int }{{n / 10, 1}, {n * 3 / 10, 1}, {n, 1}, {n / 10, 10}, {n / 10, 100}} {
		spokes := max(at.spokes, at.distributions)
		memory, cpu, seconds := grown(b, spokes, at.distributions)
		point := fmt.Sprintf("spokes=%d distributions=%d", spokes, at.distributions)
		figure("growth.memory-mb", memory, "MB", "%s, live heap and stacks of the hub", point)
		figure("growth.cpu-s", cpu.median(), "s", "%s, the hub's processor time from the first tag stored to the last acknowledged: %v s", point, cpu)
		figure("growth.to-all-s", seconds.median(), "s", "%s, from the first tag stored to the last acknowledged: %v s", point, seconds)
	}
}

// grown measures one point.
func grown(b *testing.B, n, distributions int) (memory float64, cpu, seconds samples) {
	var names []string
	for d := range distributions {
		names = append(names, fmt.Sprintf("shop-%d", d))
	}
	s := setUp(b, n, stageOptions{}, names...)
	s.release("1.0.0")
	s.connect(n)
	s.running("1.0.0", n)
	memory = live(s.ctx, b, s.hub.Debug) / (1 << 20)
	for round := range rounds(b) {
		version := fmt.Sprintf("1.%d.0", round+1)
		c := clock(s.hub.PID())
		s.release(version)
		end := s.running(version, n)
		begin := s.firstStored(version)
		cpu, seconds = append(cpu, c.between(begin, end)), append(seconds, end.Sub(begin).Seconds())
	}
	s.must(s.fleet.Disconnect(s.ctx))
	if _, err := s.hub.Stop(); err != nil { // the next point has the machine to itself
		b.Error(err)
	}
	return memory, cpu, seconds
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
