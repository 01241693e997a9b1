package integration

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/Masterminds/semver/v3"
)

// floor is the oldest version of a module that may be built into anything here.
type floor struct{ module, version, why string }

// floors have their reason each. Raise them when an advisory says so; never lower one.
var floors = [...]floor{
	{"google.golang.org/grpc", "v1.79.3", "CVE-2026-33186 (GHSA-p77j-4mvh-x3m3): a path without its leading slash got past the interceptors that authorise"},
	{"github.com/go-git/go-git/v5", "v5.19.3", "CVE-2026-45022 (5.19.0): signatures were verified over a re-encoding; CVE-2026-45570, -45571 (5.19.1), CVE-2026-71556, -71557 (5.19.2): crafted repositories"},
	{"golang.org/x/crypto", "v0.45.0", "CVE-2025-58181, CVE-2025-47914: memory without bound in ssh, panic in ssh/agent"},
	{"golang.org/x/net", "v0.45.0", "CVE-2025-47911, CVE-2025-58190: parsing that does not end"},
	{"golang.org/x/oauth2", "v0.27.0", "CVE-2025-22868: memory without bound when tokens are parsed"},
	{"google.golang.org/protobuf", "v1.33.0", "CVE-2024-24786: decoding JSON that does not end"},
	{"github.com/cloudflare/circl", "v1.6.3", "CVE-2026-1229: wrong results in elliptic curves, under OpenPGP here"},
	{"gopkg.in/yaml.v3", "v3.0.1", "CVE-2022-28948: panic on malformed input"},
}

// required is the part of `go mod edit -json` that counts.
type required struct {
	Require []struct{ Path, Version string }
	Replace []json.RawMessage
}

func (r required) problems() (all []string) {
	if n := len(r.Replace); n > 0 {
		all = append(all, fmt.Sprintf("go.mod replaces %d modules: what is built is not what it names; require a version instead", n))
	}
	for _, f := range floors {
		i := slices.IndexFunc(r.Require, func(m struct{ Path, Version string }) bool { return m.Path == f.module })
		if i < 0 {
			continue // not built in
		}
		have, err := semver.NewVersion(r.Require[i].Version)
		if err != nil || have.LessThan(semver.MustParse(f.version)) {
			all = append(all, fmt.Sprintf("go.mod has %s %s, older than %s: %s; go get %s@latest", f.module, r.Require[i].Version, f.version, f.why, f.module))
		}
	}
	return all
}

// TestArchitectureDependencyFloors: no module is older than its last hole, and none is replaced.
func TestArchitectureDependencyFloors(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "mod", "edit", "-json")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	var r required
	if err := json.Unmarshal(out, &r); err != nil || len(r.Require) < 20 {
		t.Fatalf("%d requirements, %v", len(r.Require), err)
	}
	for _, p := range r.problems() {
		t.Error(p)
	}
	for _, must := range []string{"google.golang.org/grpc", "github.com/go-git/go-git/v5", "golang.org/x/crypto", "golang.org/x/net"} {
		if !strings.Contains(string(out), `"`+must+`"`) {
			t.Errorf("go.mod does not name %s: is its floor of use any more?", must)
		}
	}
	for _, m := range r.Require { // that it can fail, a version below each floor shows
		i := slices.IndexFunc(floors[:], func(f floor) bool { return f.module == m.Path })
		if i < 0 {
			continue
		}
		planted := required{Require: []struct{ Path, Version string }{{m.Path, floors[i].version + "-0.20200101000000-abcdefabcdef"}}, Replace: []json.RawMessage{nil}}
		if got := planted.problems(); len(got) != 2 || !strings.Contains(got[1], floors[i].why) {
			t.Errorf("%s just below its floor: %q", m.Path, got)
		}
	}
}
