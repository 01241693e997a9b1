package fleet

import (
	"strings"
	"testing"
	"time"
)

func windows(t *testing.T, texts ...string) Windows {
	t.Helper()
	ws, err := ParseWindows(texts)
	if err != nil {
		t.Fatal(err)
	}
	return ws
}

func at(t *testing.T, text string) time.Time {
	t.Helper()
	if text == "" {
		return time.Time{}
	}
	m, err := time.Parse(time.RFC3339, text)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestWindowsAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]string{
		"Mon-Fri 22:00-04:00 Europe/Berlin":           "",
		"Sat,Sun 00:00-24:00 UTC":                     "",
		"daily 01:00-03:00 UTC":                       "",
		"Mon,Wed-Fri,Sun 22:30-22:30 Asia/Kathmandu":  "",
		"Mon-Sun 00:00-24:00 UTC":                     "daily 00:00-24:00 UTC",
		"sun,MON 06:00-07:00 America/New_York":        "Mon,Sun 06:00-07:00 America/New_York",
		"  Fri-Mon   06:00-07:00   Australia/Sydney ": "Mon,Fri-Sun 06:00-07:00 Australia/Sydney",
		"Daily 06:00-07:00 Etc/UTC":                   "daily 06:00-07:00 Etc/UTC",
	} {
		w, err := ParseWindow(text)
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		if want == "" {
			want = text
		}
		if got := w.String(); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
		if again, err := ParseWindow(w.String()); err != nil || again.String() != w.String() {
			t.Errorf("%q: %v", w, err)
		}
	}
	if got := windows(t, "daily 01:00-03:00 UTC", "Sat 00:00-24:00 UTC").String(); got != "daily 01:00-03:00 UTC; Sat 00:00-24:00 UTC" {
		t.Error(got)
	}
}

func TestWindowsThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"":                                     "want DAYS FROM-TO ZONE",
		"always":                               "want DAYS FROM-TO ZONE",
		"Mon-Fri 22:00-04:00":                  "names no time zone: add one, such as Europe/Berlin or UTC",
		"Mon Fri 22:00-04:00 UTC":              "want DAYS FROM-TO ZONE",
		"Mon..Fri 22:00-04:00 UTC":             `"Mon..Fri" names no days`,
		"Mon-Fri-Sun 22:00-04:00 UTC":          "names no days",
		"Monday 22:00-04:00 UTC":               "names no days",
		"Mon, 22:00-04:00 UTC":                 "names no days",
		"weekdays 22:00-04:00 UTC":             "names no days",
		"Mon 22:00 UTC":                        `"22:00" is no stretch of a day`,
		"Mon 22-04 UTC":                        `"22" is no time of day`,
		"Mon 22:00-4:00 UTC":                   `"4:00" is no time of day`,
		"Mon 22:00-24:30 UTC":                  `"24:30" is no time of day`,
		"Mon 22:60-23:00 UTC":                  `"22:60" is no time of day`,
		"Mon 24:00-03:00 UTC":                  "no day begins at 24:00",
		"Mon 10:00pm-11:00pm UTC":              "is no time of day",
		"Mon 22:00-04:00 Berlin":               `time zone "Berlin" is not known`,
		"Mon 22:00-04:00 CEST":                 `time zone "CEST" is not known`,
		"Mon 22:00-04:00 +01:00":               "is not known",
		"Mon 22:00-04:00 ../../etc/localtime":  "is not known",
		"Mon 22:00-04:00 Local":                "another one on every machine",
		"Mon 22:00-04:00 Europe/Berlin extra":  "want DAYS FROM-TO ZONE",
		"Mon 22:00-04:00 /usr/share/zoneinfo/": "is not known",
	} {
		if _, err := ParseWindow(text); err == nil || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "window ") {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	if _, err := ParseWindows([]string{"daily 01:00-03:00 UTC", "never"}); err == nil {
		t.Error("want an error")
	}
}

// 2026-05-04 is a Monday. Berlin puts its clocks forward on 2026-03-29 at 01:00 UTC, from 02:00 to 03:00,
// and back on 2026-10-25 at 01:00 UTC, from 03:00 to 02:00.
func TestWindows(t *testing.T) {
	const night = "Mon-Fri 22:00-04:00 Europe/Berlin"
	for _, c := range []struct {
		name         string
		ws           []string
		now          string
		next, closes string // next empty: never; closes empty: it is closed, or never closes
	}{
		{"none", nil, "2026-05-04T12:00:00Z", "2026-05-04T12:00:00Z", ""},
		{"before", []string{night}, "2026-05-04T12:00:00Z", "2026-05-04T20:00:00Z", ""},
		{"at the opening", []string{night}, "2026-05-04T20:00:00Z", "2026-05-04T20:00:00Z", "2026-05-05T02:00:00Z"},
		{"a moment before", []string{night}, "2026-05-04T19:59:59Z", "2026-05-04T20:00:00Z", ""},
		{"after midnight", []string{night}, "2026-05-05T00:30:00Z", "2026-05-05T00:30:00Z", "2026-05-05T02:00:00Z"},
		{"at the close", []string{night}, "2026-05-05T02:00:00Z", "2026-05-05T20:00:00Z", ""},
		{"Friday's goes on into Saturday", []string{night}, "2026-05-09T01:00:00Z", "2026-05-09T01:00:00Z", "2026-05-09T02:00:00Z"},
		{"Saturday has none of its own", []string{night}, "2026-05-09T02:00:00Z", "2026-05-11T20:00:00Z", ""},
		{"Monday morning is not Sunday's", []string{night}, "2026-05-04T01:00:00Z", "2026-05-04T20:00:00Z", ""},
		{"the day is the place's own", []string{"Mon 00:00-02:00 Asia/Tokyo"}, "2026-05-03T15:30:00Z", "2026-05-03T15:30:00Z", "2026-05-03T17:00:00Z"},
		{"half hours", []string{"daily 06:15-06:45 Asia/Kathmandu"}, "2026-05-04T00:29:00Z", "2026-05-04T00:30:00Z", ""},
		{"whole days follow on each other", []string{"Sat,Sun 00:00-24:00 UTC"}, "2026-05-02T12:00:00Z", "2026-05-02T12:00:00Z", "2026-05-04T00:00:00Z"},
		{"always open", []string{"daily 00:00-24:00 UTC"}, "2026-05-04T12:00:00Z", "2026-05-04T12:00:00Z", ""},
		{"a day from noon", []string{"Mon 12:00-12:00 UTC"}, "2026-05-05T11:59:00Z", "2026-05-05T11:59:00Z", "2026-05-05T12:00:00Z"},
		{"two that meet", []string{"Mon 10:00-12:00 UTC", "Mon 12:00-14:00 UTC"}, "2026-05-04T11:00:00Z", "2026-05-04T11:00:00Z", "2026-05-04T14:00:00Z"},
		{"two that overlap", []string{"Mon 10:00-12:00 UTC", "Mon 11:00-15:00 UTC"}, "2026-05-04T11:30:00Z", "2026-05-04T11:30:00Z", "2026-05-04T15:00:00Z"},
		{"the sooner of two", []string{"Wed 10:00-12:00 UTC", "Tue 10:00-12:00 UTC"}, "2026-05-04T12:00:00Z", "2026-05-05T10:00:00Z", ""},
		{"a week later", []string{"Mon 10:00-12:00 UTC"}, "2026-05-04T12:00:00Z", "2026-05-11T10:00:00Z", ""},

		{"over the night that is an hour short", []string{"Sat 22:00-04:00 Europe/Berlin"}, "2026-03-28T21:00:00Z", "2026-03-28T21:00:00Z", "2026-03-29T02:00:00Z"},
		{"over the night that is an hour long", []string{"Sat 22:00-04:00 Europe/Berlin"}, "2026-10-24T20:00:00Z", "2026-10-24T20:00:00Z", "2026-10-25T03:00:00Z"},
		{"opens in the hour that is left out", []string{"Sun 02:30-05:00 Europe/Berlin"}, "2026-03-29T00:00:00Z", "2026-03-29T01:00:00Z", ""},
		{"closes in the hour that is left out", []string{"Sun 01:00-02:30 Europe/Berlin"}, "2026-03-29T00:30:00Z", "2026-03-29T00:30:00Z", "2026-03-29T01:00:00Z"},
		{"is left out altogether", []string{"Sun 02:00-03:00 Europe/Berlin"}, "2026-03-28T12:00:00Z", "2026-04-05T00:00:00Z", ""},
		{"and is closed then", []string{"Sun 02:00-03:00 Europe/Berlin"}, "2026-03-29T01:00:00Z", "2026-04-05T00:00:00Z", ""},
		{"the hour that comes twice is one window", []string{"Sun 02:00-03:00 Europe/Berlin"}, "2026-10-25T00:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T02:00:00Z"},
		{"the first 02:30 opens", []string{"Sun 02:30-05:00 Europe/Berlin"}, "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z", ""},
		{"the first 02:30 closes", []string{"Sun 01:00-02:30 Europe/Berlin"}, "2026-10-25T00:00:00Z", "2026-10-25T00:00:00Z", "2026-10-25T00:30:00Z"},
		{"the second 02:30 is after it", []string{"Sun 01:00-02:30 Europe/Berlin"}, "2026-10-25T01:15:00Z", "2026-11-01T00:00:00Z", ""},
		{"a clock that is put forward at midnight", []string{"Fri 00:00-02:00 Africa/Cairo"}, "2026-04-23T21:00:00Z", "2026-04-23T22:00:00Z", ""},
		{"a clock that is put forward by half an hour", []string{"Sun 02:15-03:00 Australia/Lord_Howe"}, "2026-10-03T12:00:00Z", "2026-10-03T15:30:00Z", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			ws, now := windows(t, c.ws...), at(t, c.now)
			if got := ws.Next(now); !got.Equal(at(t, c.next)) {
				t.Errorf("next is %s, want %s", got.UTC(), c.next)
			}
			if got := ws.Closes(now); !got.Equal(at(t, c.closes)) {
				t.Errorf("closes %s, want %q", got.UTC(), c.closes)
			}
			if got := ws.Open(now); got != (c.next == c.now) {
				t.Errorf("open: %v", got)
			}
		})
	}
	if never := (Windows{{From: time.Hour, To: 2 * time.Hour}}); !never.Next(now).IsZero() || never.Open(now) {
		t.Error("a window without days opens never")
	}
}

// Minute by minute through both changes of the clock, what the three answers say agrees.
func TestWindowsAgreeWithThemselves(t *testing.T) {
	for _, text := range []string{"Sat 22:00-04:00 Europe/Berlin", "Sun 02:00-03:00 Europe/Berlin", "Sun 02:30-02:45 Europe/Berlin", "daily 01:30-02:30 Europe/Berlin", "daily 23:59-23:58 America/New_York"} {
		ws := windows(t, text)
		for _, start := range []string{"2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z"} {
			from := at(t, start)
			for m := from; m.Before(from.Add(36 * time.Hour)); m = m.Add(time.Minute) {
				open, next, closes := ws.Open(m), ws.Next(m), ws.Closes(m)
				switch {
				case open && (!next.Equal(m) || !closes.After(m) || ws.Open(closes) || !ws.Open(closes.Add(-time.Second))):
					t.Fatalf("%s is open at %s: next %s, closes %s", text, m, next, closes)
				case !open && (!next.After(m) || !closes.IsZero() || !ws.Open(next) || ws.Open(next.Add(-time.Second))):
					t.Fatalf("%s is closed at %s: next %s, closes %s", text, m, next, closes)
				}
			}
		}
	}
}
