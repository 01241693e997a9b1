package fleet

import (
	"slices"
	"testing"
	"time"
)

func TestPolicySelect(t *testing.T) {
	all := []string{"1.0.0", "1.1.0", "1.2.0", "2.0.0-rc.1", "2.0.0"}
	held := func(v ...string) map[string]bool {
		m := map[string]bool{}
		for _, s := range v {
			m[s] = true
		}
		return m
	}
	for _, c := range []struct {
		name    string
		policy  Policy
		avail   []string
		held    map[string]bool
		running string
		want    string
		why     string
	}{
		{"highest without a range", Policy{}, all, nil, "", "2.0.0", ""},
		{"highest in range", Policy{Range: "1.x"}, all, nil, "", "1.2.0", ""},
		{"prereleases are left out", Policy{}, all[:4], nil, "", "1.2.0", ""},
		{"prereleases for who asks", Policy{Prereleases: true}, all[:4], nil, "", "2.0.0-rc.1", ""},
		{"a pin wins over newer ones", Policy{Pin: &Pin{Version: "1.0.0", Source: "overlay"}}, all, nil, "1.2.0", "1.0.0", ""},
		{"a pin to what is not there", Policy{Pin: &Pin{Version: "3.0.0", Source: "overlay"}}, all, nil, "1.2.0", "", "3.0.0, the pin of overlay, is not on offer"},
		{"held releases are passed over", Policy{}, all, held("2.0.0"), "1.2.0", "1.2.0", "2.0.0 is held after it failed here"},
		{"never down by itself", Policy{}, []string{"1.0.0"}, nil, "1.2.0", "1.2.0", ""},
		{"an empty offer changes nothing", Policy{}, nil, nil, "1.2.0", "1.2.0", ""},
		{"nothing on offer", Policy{}, nil, nil, "", "", "nothing is on offer"},
		{"nothing in range", Policy{Range: ">=3.0.0"}, all, nil, "", "", `none of 5 releases is in range ">=3.0.0"`},
		{"first install with all held", Policy{}, []string{"1.0.0"}, held("1.0.0"), "", "", "1.0.0 is held after it failed here"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := c.policy.Select(c.avail, c.held, c.running)
			if err != nil {
				t.Fatal(err)
			}
			if got.Version != c.want || got.Why != c.why {
				t.Errorf("got %q (%s), want %q (%s)", got.Version, got.Why, c.want, c.why)
			}
		})
	}
	if _, err := (Policy{Range: "one"}).Select(all, nil, ""); err == nil {
		t.Error("a range that is none: want an error")
	}
}

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
