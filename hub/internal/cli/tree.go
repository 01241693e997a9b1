package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// canvas is what a picture is drawn on. Drawing is pure: the same canvas and message make the same lines.
type canvas struct {
	width, height int // columns and lines; 0: as many as it takes
	colour        bool
	now           time.Time // the hub's clock, which made the times that are shown
}

// Colours, and what they say: it is done, it is bad, it waits for a person, it moves, it is an aside.
const (
	green  = "32"
	red    = "31"
	yellow = "33"
	cyan   = "36"
	bold   = "1"
	dim    = "2"
)

func (c canvas) paint(code, s string) string {
	if !c.colour || code == "" || s == "" {
		return s
	}
	return "\x1b[" + code + "m" + s + plainAgain
}

// count is how many clusters of a rollout or a wave are where.
type count struct{ total, done, underway, failed, parked int }

func countOf(waves ...*fleetv1.RolloutWave) count {
	var n count
	for _, w := range waves {
		n.total += int(w.GetClusters())
		n.done += int(w.GetDone())
		n.underway += int(w.GetUnderway())
		n.failed += int(w.GetFailed())
		n.parked += int(w.GetParked())
	}
	return n
}

// bar draws n over width columns. Whatever there is of failures and movement has at least one column, and
// it is full only when nothing is left to do.
func (c canvas) bar(n count, width int) string {
	if width <= 0 {
		return ""
	}
	if n.total == 0 {
		return c.paint(dim, strings.Repeat("─", width))
	}
	share := func(k int) int {
		if k == 0 {
			return 0
		}
		return max(k*width/n.total, 1)
	}
	failed, underway, parked := share(n.failed), share(n.underway), share(n.parked)
	done := n.done * width / n.total
	if n.done+n.failed+n.underway+n.parked >= n.total { // rounding leaves nothing over
		done = width - failed - underway - parked
	}
	done = min(max(done, 0), max(width-failed-underway-parked, 0))
	rest := max(width-done-failed-underway-parked, 0)
	line := []rune(strings.Repeat("━", done) + strings.Repeat("╍", underway) + strings.Repeat("×", failed) + strings.Repeat("·", parked) + strings.Repeat("─", rest))[:width]
	var b strings.Builder
	for len(line) > 0 { // one colour a run
		run := 1
		for run < len(line) && line[run] == line[0] {
			run++
		}
		b.WriteString(c.paint(map[rune]string{'━': green, '╍': cyan, '×': red, '·': yellow, '─': dim}[line[0]], string(line[:run])))
		line = line[run:]
	}
	return b.String()
}

// grid is where the columns of a tree are.
type grid struct{ name, bar, figures int }

// grid fits the columns into the canvas: the names come first, the bar gives way.
func (c canvas) grid(names []string, total int) grid {
	g := grid{bar: 24, figures: 2*len(thousands(total)) + 1}
	for _, n := range names {
		g.name = max(g.name, utf8.RuneCountInString(n))
	}
	if c.width > 0 {
		g.name = min(g.name, max(c.width/3, 12))
		g.bar = min(g.bar, c.width/4)
		if c.width < 44 {
			g.bar = 0
		}
	}
	return g
}

// line is one node: its name, a bar, done of total, and what there is to say.
func (c canvas) line(g grid, branch, name, style string, n count, text string) string {
	b := c.paint(dim, branch) + c.paint(style, pad(shorten(name, g.name-utf8.RuneCountInString(branch)), g.name-utf8.RuneCountInString(branch))) + "  "
	if g.bar > 0 {
		b += c.bar(n, g.bar) + "  "
	}
	figures := thousands(n.done) + "/" + thousands(n.total)
	return b + strings.Repeat(" ", max(g.figures-len(figures), 0)) + figures + "  " + text
}

// tree is a rollout with its waves and those of its clusters that there is something to say about.
func (c canvas) tree(r *fleetv1.Rollout) []string {
	title := plain(r.GetDistribution() + " " + r.GetVersion())
	names := []string{title}
	for i, w := range r.GetWaves() {
		names = append(names, branchLast+waveName(r, i, w))
	}
	all := countOf(r.GetWaves()...)
	g := c.grid(names, all.total)
	head := []string{c.line(g, "", title, bold, all, c.headline(r))}
	if reason := r.GetReason(); reason != "" {
		room := 200 - len("│ ")
		if c.width > 0 {
			room = c.width - 2
		}
		head = append(head, c.paint(dim, "│ ")+c.paint(standing(r), shorten(reason, room)))
	}
	var foot []string
	returning := fleet.RolloutPhase(r.GetPhase()) == fleet.RolloutReturning
	if n := r.GetJoiners(); n > 0 && underWay(r) && !returning {
		foot = append(foot, "", c.paint(dim, fmt.Sprintf("%s in no wave: %s the release when the last one is over", plural(int(n), "cluster is", "clusters are"), map[bool]string{true: "it takes", false: "they take"}[n == 1])))
	}
	if next := nextSteps(r); len(next) > 0 {
		foot = append(foot, "", "Next:")
		for _, n := range next {
			foot = append(foot, "  "+n)
		}
	}
	room := 0
	if c.height > 0 {
		room = max(c.height-len(head)-len(foot), 1)
	}
	lines := slices.Concat(head, c.waves(g, r, room), foot)
	if c.height > 0 && len(lines) > c.height {
		lines = lines[:c.height]
	}
	for i, l := range lines {
		lines[i] = clip(strings.TrimRight(l, " "), c.width)
	}
	return lines
}

const (
	branchMid, branchLast = "├─ ", "└─ "
	// mostClusters are named below a tree that may be as long as it likes.
	mostClusters = 40
)

// waves draws the waves in at most room lines (0: no bound). The one under way comes first when there are
// too many, then clusters, the worst first.
func (c canvas) waves(g grid, r *fleetv1.Rollout, room int) []string {
	waves := r.GetWaves()
	from, to := 0, len(waves)
	if half := max(room/2, 2); room > 0 && len(waves) > half { // clusters want the other half; two lines tell of the waves that are not drawn
		keep := max(half-2, 1)
		from = min(max(int(r.GetWave())-keep/2, 0), len(waves)-keep)
		to = from + keep
		if from == 1 { // it takes a line either way
			from = 0
		}
		if to == len(waves)-1 {
			to++
		}
	}
	left := mostClusters
	if room > 0 {
		left = max(room-(to-from)-boolInt(from > 0)-boolInt(to < len(waves)), 0)
	}
	shown, hidden := tell(r, int32(from), int32(to), left)
	var lines []string
	if from > 0 {
		lines = append(lines, c.paint(dim, fmt.Sprintf("%s✓ %s before: %s", branchMid, plural(from, "wave", "waves"), countOf(waves[:from]...))))
	}
	for i := from; i < to; i++ {
		branch, trunk := branchMid, "│  "
		if i == len(waves)-1 {
			branch, trunk = branchLast, "   "
		}
		lines = append(lines, c.line(g, branch, waveName(r, i, waves[i]), waveStyle(r, i), countOf(waves[i]), c.waveText(r, i)))
		lines = append(lines, c.clusters(trunk, r, shown[int32(i)], hidden[int32(i)])...)
	}
	if to < len(waves) {
		lines = append(lines, c.paint(dim, fmt.Sprintf("%s○ %s after: %s", branchLast, plural(len(waves)-to, "wave", "waves"), countOf(waves[to:]...))))
	}
	return append(lines, c.clusters("   ", r, shown[-1], hidden[-1])...)
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// marked is what a cluster's mark looks like, and how much it matters: clusters without a rank are only counted.
type marked struct {
	rank         int
	sign, colour string
}

func markOf(m string) marked {
	switch fleet.Mark(m) {
	case fleet.MarkStranded:
		return marked{1, "✗", red}
	case fleet.MarkFailed:
		return marked{2, "✗", red}
	case fleet.MarkReturning:
		return marked{3, "↩", yellow}
	case fleet.MarkUnderway:
		return marked{4, "▸", cyan}
	case fleet.MarkOffered:
		return marked{5, "▸", cyan}
	case fleet.MarkParked:
		return marked{6, "‖", yellow}
	}
	return marked{}
}

// tell picks at most so many clusters of the waves that are drawn, the worst first, then those that are so
// the longest, and counts the others, by wave.
func tell(r *fleetv1.Rollout, from, to int32, most int) (shown map[int32][]*fleetv1.RolloutCluster, hidden map[int32]int) {
	var all []*fleetv1.RolloutCluster
	for _, m := range r.GetClusters() {
		if w := m.GetWave(); markOf(m.GetMark()).rank > 0 && (w == -1 || w >= from && w < to) {
			all = append(all, m)
		}
	}
	slices.SortStableFunc(all, func(a, b *fleetv1.RolloutCluster) int {
		return cmp.Or(cmp.Compare(markOf(a.GetMark()).rank, markOf(b.GetMark()).rank),
			wire.FromTime(a.GetSince()).Compare(wire.FromTime(b.GetSince())), cmp.Compare(a.GetCluster(), b.GetCluster()))
	})
	keep := len(all)
	waves := map[int32]bool{}
	for _, m := range all {
		waves[m.GetWave()] = true
	}
	if keep > most { // each wave may want a line for those that are not shown
		keep = max(most-len(waves), 0)
	}
	shown, hidden = map[int32][]*fleetv1.RolloutCluster{}, map[int32]int{}
	for i, m := range all {
		if i < keep {
			shown[m.GetWave()] = append(shown[m.GetWave()], m)
		} else {
			hidden[m.GetWave()]++
		}
	}
	if most < len(waves) { // no line to say so
		clear(hidden)
	}
	return shown, hidden
}

// clusters draws the clusters of one wave.
func (c canvas) clusters(trunk string, r *fleetv1.Rollout, shown []*fleetv1.RolloutCluster, hidden int) []string {
	name, what := 0, 0
	for _, m := range shown {
		name = max(name, utf8.RuneCountInString(m.GetCluster()))
		what = max(what, utf8.RuneCountInString(stage(m)))
	}
	if c.width > 0 {
		name = min(name, max(c.width/3, 10))
	}
	var lines []string
	for _, m := range shown {
		k := markOf(m.GetMark())
		age := fleet.Age(c.now, wire.FromTime(m.GetSince()))
		text := shorten(m.GetReason(), 400)
		if c := wire.FromCanary(m.GetCanary()); c != nil && fleet.Mark(m.GetMark()) != fleet.MarkUnderway { // it stands at a gate
			text = strings.TrimPrefix(shorten(text+"; "+c.String(), 400), "; ")
		}
		lines = append(lines, c.paint(dim, trunk)+"   "+c.paint(k.colour, k.sign)+" "+pad(shorten(m.GetCluster(), name), name)+"  "+
			c.paint(k.colour, pad(stage(m), what))+"  "+c.paint(dim, strings.Repeat(" ", max(4-len(age), 0))+age)+"  "+text)
	}
	if hidden > 0 {
		lines = append(lines, c.paint(dim, fmt.Sprintf("%s   … and %s: hub rollout status %s %s -o wide", trunk, plural(hidden, "cluster more", "clusters more"), r.GetDistribution(), r.GetVersion())))
	}
	return lines
}

// stage is where a cluster stands, in a word or two: for one under way the phase of its delivery, with the
// step of its canary.
func stage(m *fleetv1.RolloutCluster) string {
	if fleet.Mark(m.GetMark()) == fleet.MarkUnderway && m.GetPhase() != "" {
		if c := wire.FromCanary(m.GetCanary()); c != nil {
			return plain(fmt.Sprintf("%s step %d/%d", m.GetPhase(), c.Step, c.Steps))
		}
		return plain(m.GetPhase())
	}
	return plain(m.GetMark())
}

func waveName(r *fleetv1.Rollout, i int, w *fleetv1.RolloutWave) string {
	sign := "○"
	switch {
	case through(r, i):
		sign = "✓"
	case i == int(r.GetWave()) && fleet.RolloutPhase(r.GetPhase()).Terminal():
		sign = "■"
	case i == int(r.GetWave()):
		sign = "▸"
	}
	return fmt.Sprintf("%s %d %s", sign, i+1, w.GetName())
}

// through: the wave is over and the rollout went on, or is completed.
func through(r *fleetv1.Rollout, i int) bool {
	return i < int(r.GetWave()) || fleet.RolloutPhase(r.GetPhase()) == fleet.RolloutCompleted
}

func waveStyle(r *fleetv1.Rollout, i int) string {
	switch {
	case through(r, i):
		return green
	case i == int(r.GetWave()):
		return bold
	}
	return dim
}

// waveText is what there is to say of a wave beside its bar.
func (c canvas) waveText(r *fleetv1.Rollout, i int) string {
	w := r.GetWaves()[i]
	var parts []string
	add := func(n uint32, code, words string) {
		if n > 0 {
			parts = append(parts, c.paint(code, fmt.Sprintf("%s %s", thousands(int(n)), words)))
		}
	}
	current := i == int(r.GetWave()) && underWay(r)
	if current && fleet.RolloutPhase(r.GetPhase()) == fleet.RolloutSoaking && w.GetSoakUntil() != nil {
		parts = append(parts, c.paint(cyan, span(wire.FromTime(w.GetSoakUntil()).Sub(c.now))+" of soak left"))
	}
	add(w.GetUnderway(), cyan, "under way")
	budget := thousands(int(w.GetBudget()))
	switch {
	case w.GetFailed() > w.GetBudget():
		add(w.GetFailed(), red, fmt.Sprintf("failed, %s allowed", budget))
	case w.GetFailed() > 0:
		add(w.GetFailed(), red, fmt.Sprintf("failed of %s allowed", budget))
	case current && w.GetBudget() < w.GetClusters():
		if w.GetBudget() == 0 {
			budget = "none"
		}
		parts = append(parts, c.paint(dim, budget+" may fail"))
	}
	var back uint32
	for _, m := range r.GetClusters() {
		if m.GetWave() == int32(i) && fleet.Mark(m.GetMark()) == fleet.MarkReturned {
			back++
		}
	}
	add(back, yellow, "brought back")
	add(w.GetParked(), yellow, "parked")
	if i > int(r.GetWave()) && i < len(r.GetPlan().GetWaves()) {
		for _, gate := range r.GetPlan().GetWaves()[i].GetGates() {
			parts = append(parts, c.paint(dim, plain(gate)))
		}
	}
	return strings.Join(parts, c.paint(dim, " · "))
}

// headline is where a rollout stands, and for how long.
func (c canvas) headline(r *fleetv1.Rollout) string {
	text := c.paint(standing(r), phaseWord(c.now, r))
	if n := len(r.GetWaves()); n > 1 && !fleet.RolloutPhase(r.GetPhase()).Terminal() {
		text += c.paint(dim, fmt.Sprintf(" · wave %d of %d", r.GetWave()+1, n))
	}
	age := fleet.Age(c.now, wire.FromTime(r.GetSince()))
	if fleet.RolloutPhase(r.GetPhase()).Terminal() {
		age += " ago"
	}
	return text + c.paint(dim, " · "+age)
}
