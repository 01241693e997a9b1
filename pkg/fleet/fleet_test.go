package fleet

import (
	"slices"
	"testing"
	"time"
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
