package fleet

import (
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // a container has no zones of its own, and a window must not depend on the machine
)

// Window is a stretch of the week in which something may be done, in a place's own time.
type Window struct {
	Days     [7]bool       // by time.Weekday: the days on which it opens
	From, To time.Duration // since midnight, at most 24h; To at or before From: over midnight
	Zone     *time.Location
}

// Windows are open when one of them is. None: always.
type Windows []Window

const windowForm = `want DAYS FROM-TO ZONE, such as "Mon-Fri 22:00-04:00 Europe/Berlin" or "daily 01:00-03:00 UTC"`

var (
	dayNames = [7]string{"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"}
	week     = [7]time.Weekday{time.Monday, time.Tuesday, time.Wednesday, time.Thursday, time.Friday, time.Saturday, time.Sunday}
)

// ParseWindow reads "Mon-Fri 22:00-04:00 Europe/Berlin", "Sat,Sun 00:00-24:00 UTC", "daily 01:00-03:00 UTC".
// The days are those on which the window opens. The zone is never guessed.
func ParseWindow(s string) (Window, error) {
	parts := strings.Fields(s)
	if len(parts) == 2 && strings.Contains(parts[1], ":") {
		return Window{}, fmt.Errorf("window %q: it names no time zone: add one, such as Europe/Berlin or UTC", s)
	}
	if len(parts) != 3 {
		return Window{}, fmt.Errorf("window %q: %s", s, windowForm)
	}
	var w Window
	var err error
	if w.Days, err = parseDays(parts[0]); err != nil {
		return Window{}, fmt.Errorf("window %q: %w", s, err)
	}
	from, to, ok := strings.Cut(parts[1], "-")
	if !ok {
		return Window{}, fmt.Errorf("window %q: %q is no stretch of a day: want FROM-TO, such as 22:00-04:00", s, parts[1])
	}
	if w.From, err = parseClock(from); err != nil {
		return Window{}, fmt.Errorf("window %q: %w", s, err)
	}
	if w.To, err = parseClock(to); err != nil {
		return Window{}, fmt.Errorf("window %q: %w", s, err)
	}
	if w.From == day {
		return Window{}, fmt.Errorf("window %q: no day begins at 24:00: want 00:00 of the next", s)
	}
	if w.Zone, err = parseZone(parts[2]); err != nil {
		return Window{}, fmt.Errorf("window %q: %w", s, err)
	}
	return w, nil
}

const day = 24 * time.Hour

func parseDays(s string) (days [7]bool, err error) {
	if strings.EqualFold(s, "daily") {
		return [7]bool{true, true, true, true, true, true, true}, nil
	}
	for part := range strings.SplitSeq(s, ",") {
		first, last, stretch := strings.Cut(part, "-")
		if !stretch {
			last = first
		}
		from, to := dayNamed(first), dayNamed(last)
		if from < 0 || to < 0 {
			return days, fmt.Errorf("%q names no days: want Mon, Tue, Wed, Thu, Fri, Sat, Sun, a stretch such as Mon-Fri, several with commas, or daily", s)
		}
		for d := from; ; d = (d + 1) % 7 {
			days[d] = true
			if d == to {
				break
			}
		}
	}
	return days, nil
}

func dayNamed(s string) int {
	return slices.IndexFunc(dayNames[:], func(name string) bool { return strings.EqualFold(s, name) })
}

func parseClock(s string) (time.Duration, error) {
	if s == "24:00" {
		return day, nil
	}
	t, err := time.Parse("15:04", s)
	if err != nil || len(s) != len("15:04") {
		return 0, fmt.Errorf("%q is no time of day: want HH:MM from 00:00 to 24:00", s)
	}
	return time.Duration(t.Hour())*time.Hour + time.Duration(t.Minute())*time.Minute, nil
}

func parseZone(s string) (*time.Location, error) {
	if s == "Local" { // the machine's: another one's after a move
		return nil, fmt.Errorf("time zone %q is another one on every machine: want a place, such as Europe/Berlin, or UTC", s)
	}
	zone, err := time.LoadLocation(s)
	if err != nil {
		return nil, fmt.Errorf("time zone %q is not known: want a place of the IANA database, such as Europe/Berlin, or UTC", s)
	}
	return zone, nil
}

// ParseWindows reads each.
func ParseWindows(texts []string) (Windows, error) {
	var all Windows
	for _, s := range texts {
		w, err := ParseWindow(s)
		if err != nil {
			return nil, err
		}
		all = append(all, w)
	}
	return all, nil
}

// Texts are what ParseWindows reads.
func (ws Windows) Texts() []string {
	var all []string
	for _, w := range ws {
		all = append(all, w.String())
	}
	return all
}

func (ws Windows) String() string { return strings.Join(ws.Texts(), "; ") }

// String is the form that ParseWindow reads, with the week's days in their order.
func (w Window) String() string {
	return fmt.Sprintf("%s %s-%s %s", w.days(), clock(w.From), clock(w.To), w.zone())
}

func (w Window) days() string {
	var parts []string
	for n := 0; n < len(week); n++ {
		if !w.Days[week[n]] {
			continue
		}
		last := n
		for last+1 < len(week) && w.Days[week[last+1]] {
			last++
		}
		switch name := dayNames[week[n]]; {
		case last-n == 6:
			return "daily"
		case last-n >= 2:
			parts = append(parts, name+"-"+dayNames[week[last]])
			n = last
		default:
			parts = append(parts, name)
		}
	}
	return strings.Join(parts, ",")
}

func clock(d time.Duration) string {
	return fmt.Sprintf("%02d:%02d", int(d.Hours()), int(d.Minutes())%60)
}

func (w Window) zone() *time.Location {
	if w.Zone == nil {
		return time.UTC
	}
	return w.Zone
}

// stretch is from when to when the window is open that opens on t's day, moved by so many days; ok is
// false where it does not open then.
func (w Window) stretch(t time.Time, days int) (opens, closes time.Time, ok bool) {
	y, m, d := t.In(w.zone()).Date()
	on := time.Date(y, m, d+days, 0, 0, 0, 0, time.UTC)
	if !w.Days[on.Weekday()] {
		return opens, closes, false
	}
	until := on
	if w.To <= w.From {
		until = on.AddDate(0, 0, 1)
	}
	opens, closes = first(on.Add(w.From), w.zone()), first(until.Add(w.To), w.zone())
	return opens, closes, opens.Before(closes) // all of it may lie in the hour that spring leaves out
}

// first is the first moment at which a zone's clock shows wall, or more where the clock is put forward
// over it. wall is a clock's face, written as if in UTC.
func first(wall time.Time, zone *time.Location) time.Time {
	t := time.Date(wall.Year(), wall.Month(), wall.Day(), wall.Hour(), wall.Minute(), 0, 0, zone)
	_, offset := t.Zone()
	start, end := t.ZoneBounds()
	switch shown := t.Add(time.Duration(offset) * time.Second).UTC(); {
	case shown.After(wall): // left out, and t lies behind the change
		return start
	case shown.Before(wall): // left out, and t lies before it
		return end
	}
	if !start.IsZero() { // an hour that comes twice: this may be the second
		_, before := start.Add(-1).In(zone).Zone()
		if earlier := wall.Add(-time.Duration(before) * time.Second).In(zone); earlier.Before(start) && earlier.Before(t) {
			return earlier
		}
	}
	return t
}

// closes is when the window closes that is open at now; the zero time where it is closed.
func (w Window) closes(now time.Time) time.Time {
	for days := -1; days <= 0; days++ {
		if opens, closes, ok := w.stretch(now, days); ok && !now.Before(opens) && now.Before(closes) {
			return closes
		}
	}
	return time.Time{}
}

// Open reports whether it may be done now.
func (ws Windows) Open(now time.Time) bool {
	return len(ws) == 0 || slices.ContainsFunc(ws, func(w Window) bool { return !w.closes(now).IsZero() })
}

// lookAhead is in days: a weekly window that spring leaves out once opens within two weeks.
const lookAhead = 15

// Next is when it may be done: now where it may be, else the next opening. The zero time: never.
func (ws Windows) Next(now time.Time) time.Time {
	if ws.Open(now) {
		return now
	}
	var next time.Time
	for _, w := range ws {
		for days := 0; days <= lookAhead; days++ {
			opens, _, ok := w.stretch(now, days)
			if !ok || !opens.After(now) {
				continue
			}
			if next.IsZero() || opens.Before(next) {
				next = opens
			}
			break
		}
	}
	return next
}

// Closes is until when it may be done, across windows that follow on each other. The zero time: it may
// not be now, or it always may.
func (ws Windows) Closes(now time.Time) time.Time {
	end := now
	for {
		latest := end
		for _, w := range ws {
			if c := w.closes(end); c.After(latest) {
				latest = c
			}
		}
		switch {
		case latest.Equal(end) && end.Equal(now), latest.Sub(now) > lookAhead*day:
			return time.Time{}
		case latest.Equal(end):
			return end
		}
		end = latest
	}
}
