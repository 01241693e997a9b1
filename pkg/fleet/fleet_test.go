package fleet

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/Masterminds/semver/v3"
)

func TestVersions(t *testing.T) {
	for _, bad := range []string{"", "1", "1.0", "release-1", "vv1.0.0", "1.0.0.0", "latest", "01.0.0"} {
		if _, err := ParseVersion(bad); err == nil {
			t.Errorf("%q: want an error", bad)
		}
	}
	got := []string{"2.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1", "v1.9.1", "nightly"}
	SortVersions(got)
	want := []string{"nightly", "1.9.0", "v1.9.1", "1.10.0", "2.0.0-rc.1", "2.0.0"}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	a, _ := ParseVersion("1.2.3")
	b, _ := ParseVersion("v1.2.3")
	if !a.Same(b) || a.Compare(b) == 0 {
		t.Error("1.2.3 and v1.2.3: want the same version, and still an order")
	}
}

// What is read without the library is read as the library does.
func TestVersionsAreReadAsTheLibraryDoes(t *testing.T) {
	parts := []string{"", "0", "1", "9", "10", "01", "00", "123456789012345678", "1234567890123456789", "18446744073709551615", "18446744073709551616", "-1", "+1", "a", " 1"}
	tails := []string{"", "-rc.1", "-rc.2", "-01", "+build", "-rc.1+build", ".1", "."}
	var good []Version
	for _, a := range parts {
		for _, b := range parts {
			for _, tail := range tails {
				tag := a + "." + b + ".3" + tail
				want, wrong := semver.StrictNewVersion(tag)
				got, err := ParseVersion(tag)
				if (err == nil) != (wrong == nil) {
					t.Fatalf("%q: got %v, want %v", tag, err, wrong)
				}
				if err == nil && !got.semver().Equal(want) {
					t.Fatalf("%q: got %s", tag, got.semver())
				}
				if err == nil && len(a) < 4 {
					good = append(good, got)
				}
			}
		}
	}
	for _, a := range good {
		for _, b := range good {
			if got, want := a.order(b), a.semver().Compare(b.semver()); got != want || a.Same(b) != (want == 0) {
				t.Fatalf("%s and %s: got %d, want %d", a, b, got, want)
			}
		}
	}
}

func TestNames(t *testing.T) {
	for s, ok := range map[string]bool{"acme/eu-1": true, "acme": false, "Acme/eu": false, "a/b/c": false, "/x": false, "x/": false} {
		if _, err := ParseCluster(s); (err == nil) != ok {
			t.Errorf("%q: %v", s, err)
		}
	}
	if _, err := ParseDigest("sha256:zz"); err == nil {
		t.Error("want an error")
	}
}

func TestAge(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for d, want := range map[time.Duration]string{12 * time.Second: "12s", 3 * time.Minute: "3m", 5 * time.Hour: "5h", 72 * time.Hour: "3d", -time.Second: "0s"} {
		if got := Age(now, now.Add(-d)); got != want {
			t.Errorf("%v: got %s, want %s", d, got, want)
		}
	}
	if Age(now, time.Time{}) != "never" {
		t.Error("zero time: want never")
	}
}

func TestMoments(t *testing.T) {
	noon := time.Date(2026, 5, 4, 12, 0, 0, 1, time.UTC)
	for text, want := range map[string]string{
		"":                          "0001-01-01",
		"2027-01-31":                "2027-01-31",
		"2026-05-05T00:00:00+01:00": "2026-05-04T23:00:00Z",
		"7d":                        "2026-05-11T12:00:00Z",
		"36h":                       "2026-05-06",
		"90m30s":                    "2026-05-04T13:30:30Z",
	} {
		if got, err := ParseUntil(noon, text); err != nil || Moment(got) != want {
			t.Errorf("%q: got %s, %v, want %s", text, Moment(got), err, want)
		}
	}
	for text, want := range map[string]string{
		"2026-05-04": "over already", "2020-01-01T00:00:00Z": "over already", "-1h": "over already", "0d": "over already", "-7d": "over already",
		"soon": "want a date such as", "31.01.2027": "want a date such as", "2027-02-30": "want a date such as", "7": "want a date such as", "99999999d": "want a date such as",
	} {
		if got, err := ParseUntil(noon, text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %s, %v, want %s", text, Moment(got), err, want)
		}
	}
}

func TestPoliciesAreCompared(t *testing.T) {
	ws, err := ParseWindows([]string{"daily 01:00-03:00 UTC"})
	if err != nil {
		t.Fatal(err)
	}
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)
	pin := Pin{Version: "1.0.0", Reason: "audit", Source: PinSpoke, Author: "ada", Until: at}
	all := []Policy{{}, {Range: "1.x"}, {Prereleases: true}, {Patch: AskFirst}, {Minor: AskFirst}, {Major: AskFirst}, {Windows: ws}, {Pin: &pin}}
	for _, change := range []func(*Pin){func(p *Pin) { p.Version = "2" }, func(p *Pin) { p.Reason = "" }, func(p *Pin) { p.Source = PinHub },
		func(p *Pin) { p.Author = "" }, func(p *Pin) { p.Until = at.Add(1) }} {
		other := pin
		change(&other)
		all = append(all, Policy{Pin: &other})
	}
	for i, a := range all {
		for j, b := range all {
			if a.Equal(b) != (i == j) {
				t.Errorf("%+v and %+v: %v", a, b, a.Equal(b))
			}
		}
	}
	elsewhere := pin
	elsewhere.Until = at.In(berlin)
	if !(Policy{Pin: &pin, Patch: Automatic}).Equal(Policy{Pin: &elsewhere}) {
		t.Error("the same moment, and the step's default: want the same policy")
	}
}
