package fleet

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseMoment reads a time as RFC 3339 has it, "2027-01-31T18:00:00+01:00", or a date, which is its first
// moment in UTC.
func ParseMoment(s string) (time.Time, error) {
	if t, err := time.Parse(time.DateOnly, s); err == nil {
		return t, nil
	}
	if t, err := time.Parse(time.RFC3339, s); err == nil {
		return t.UTC(), nil
	}
	return time.Time{}, fmt.Errorf("%q: want a date such as 2027-01-31 (its beginning, UTC) or a time such as 2027-01-31T18:00:00+01:00", s)
}

// ParseUntil reads what ends later than now: a moment, or how long from now, such as 7d or 12h. The empty
// text is the zero time: no end.
func ParseUntil(now time.Time, s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	t, err := ParseMoment(s)
	if d, ok := parseSpan(s); ok {
		t, err = now.Add(d).UTC().Truncate(time.Second), nil
	}
	switch {
	case err != nil:
		return time.Time{}, fmt.Errorf("%w, or how long from now, such as 7d or 12h", err)
	case !t.After(now):
		return time.Time{}, fmt.Errorf("%s is over already: it is %s", s, now.UTC().Format(time.RFC3339))
	}
	return t, nil
}

// parseSpan reads a duration; other than time.ParseDuration it knows days.
func parseSpan(s string) (time.Duration, bool) {
	if n, err := strconv.Atoi(strings.TrimSuffix(s, "d")); err == nil && strings.HasSuffix(s, "d") && n < 100*365 && n > -100*365 {
		return time.Duration(n) * day, true
	}
	d, err := time.ParseDuration(s)
	return d, err == nil
}

// Moment writes a time for people: a date where it is the beginning of one in UTC.
func Moment(t time.Time) string {
	if t = t.UTC(); t.Truncate(day).Equal(t) {
		return t.Format(time.DateOnly)
	}
	return t.Format(time.RFC3339)
}
