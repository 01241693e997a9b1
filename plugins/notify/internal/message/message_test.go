package message

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

var update = flag.Bool("update", false, "write the golden files anew")

const commit = "0f1e2d3c4b5a69788796a5b4c3d2e1f00112233c"

func events() map[string]*pluginv1.Event {
	at := timestamppb.New(time.Date(2026, 5, 4, 12, 0, 30, 0, time.UTC))
	return map[string]*pluginv1.Event{
		"rolled-back": {
			Id: "acme/eu-1:4711", At: at, Distribution: "app", VersionFrom: "1.2.0", VersionTo: "1.4.0", Cluster: "acme/eu-1", Phase: "RolledBack",
			Severity: pluginv1.Severity_SEVERITY_ERROR, Terminal: true, Message: "backend: success rate 92.1 % < 99 %; 1.2.0 runs again",
			Verdict:    &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Reason: "backend: success rate 92.1 % < 99 % over 1m, 4,120 requests", Sample: 4120, MinimumSample: 50},
			Repository: "https://ann:hunter2@github.com/vendor/app.git", Tag: "1.4.0", Commit: commit,
			Summary: map[string]uint32{"Succeeded": 12, "RolledBack": 1, "Progressing": 27, "Refused": 0},
		},
		"installed": {Id: "i", At: at, Distribution: "app", VersionTo: "1.4.0", Cluster: "acme/eu-1", Phase: "Succeeded", Severity: pluginv1.Severity_SEVERITY_INFO, Terminal: true},
		"asked": {
			Id: "a", At: at, Distribution: "app", VersionFrom: "1.2.0", VersionTo: "1.4.0", Cluster: "acme/eu-1", Phase: "AwaitingApproval", Severity: pluginv1.Severity_SEVERITY_WARNING,
			Message: "minor upgrade from 1.2.0 needs approval: spoke approve app", Repository: "git@github.com:vendor/app.git", Tag: "1.4.0",
			Verdict: &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: "no traffic: 3 requests in 1m, wants 50"},
		},
		// What somebody puts into a release must not call anybody, link anywhere or look like something else.
		"hostile": {
			Id: "<!here>", At: at, Distribution: "<!channel>", VersionTo: "[1](http://evil)", Cluster: "*a*/_b_\u202e`c`", Phase: "~Succeeded~\n# fine",
			Message: "<http://evil|click> & <@U1> [click](http://evil) **bold**\r\n\x1b[31m" + strings.Repeat("x", 5000),
			Verdict: &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Reason: "![i](http://evil/p.png) <b>&nbsp;</b>" + strings.Repeat("é", 5000)},
		},
		"empty": {},
	}
}

func TestGolden(t *testing.T) {
	for name, e := range events() {
		for kind, write := range map[string]func(*pluginv1.Event) ([]byte, error){"slack": Slack, "teams": Teams, "webhook": Webhook} {
			got, err := write(e)
			if err != nil {
				t.Fatal(err)
			}
			if len(got) > 28<<10 {
				t.Errorf("%s %s has %d bytes; Teams takes 28 KiB", kind, name, len(got))
			}
			if bytes.Contains(got, []byte("hunter2")) {
				t.Errorf("%s %s tells a password", kind, name)
			}
			var pretty bytes.Buffer
			if err := json.Indent(&pretty, got, "", "  "); err != nil {
				t.Fatal(err)
			}
			pretty.WriteByte('\n')
			path := filepath.Join("testdata", kind+"-"+name+".json")
			if *update {
				if err := os.WriteFile(path, pretty.Bytes(), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(pretty.Bytes(), want) {
				t.Errorf("%s is not what it was (-update writes it): %v\n%s", path, err, pretty.Bytes())
			}
		}
	}
}

// Slack refuses a message that is over one of its limits, whole.
func TestSlackLimits(t *testing.T) {
	e := events()["hostile"]
	e.Distribution, e.Cluster = strings.Repeat("d", 300), strings.Repeat("<", 400)
	e.Message, e.Verdict.Reason = strings.Repeat("&", 5000), strings.Repeat("&", 5000)
	body, err := Slack(e)
	if err != nil {
		t.Fatal(err)
	}
	var m struct {
		Blocks []struct {
			Type   string
			Text   struct{ Text string }
			Fields []struct{ Text string }
		}
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Fatal(err)
	}
	for _, b := range m.Blocks {
		limit := map[string]int{"header": 150, "section": 3000}[b.Type]
		if n := len([]rune(b.Text.Text)); b.Type != "context" && n > limit && !strings.Contains(b.Text.Text, "&amp;") {
			t.Errorf("a %s of %d characters", b.Type, n)
		}
		for _, f := range b.Fields {
			if n := len(strings.ReplaceAll(f.Text, "&amp;", "&")); n > 2000 {
				t.Errorf("a field of %d characters", n)
			}
		}
	}
}

// The vector of the Standard Webhooks specification's own libraries.
func TestSign(t *testing.T) {
	got, err := Sign("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "msg_p5jXN8AQM9LWM0D4loKWxJek", time.Unix(1614265330, 0), []byte(`{"test": 2432232314}`))
	if err != nil || got != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
		t.Errorf("%s, %v", got, err)
	}
	plainText, err := Sign("any words", "msg_1", time.Unix(1, 0), nil)
	if err != nil || !strings.HasPrefix(plainText, "v1,") || plainText == got {
		t.Errorf("%s, %v", plainText, err)
	}
	if _, err := Sign("whsec_???", "", time.Unix(1, 0), nil); err == nil || strings.Contains(err.Error(), "???") {
		t.Errorf("no base64: %v", err)
	}
}

func TestStatusOf(t *testing.T) {
	for _, test := range []struct {
		name, phase, why string
		summary          map[string]uint32
		state            State
		text             string
	}{
		{"all", "Done", "", map[string]uint32{"Succeeded": 40}, Success, "40 of 40 clusters run 1.4.0"},
		{"on the way", "Underway", "", map[string]uint32{"Succeeded": 12, "Progressing": 3, "AwaitingApproval": 25}, Pending, "12 of 40 clusters run 1.4.0; 28 under way"},
		{"all that are to have it", "Done", "", map[string]uint32{"Succeeded": 7, "Pinned": 2, "Silent": 1}, Success, "7 of 10 clusters run 1.4.0; 2 Pinned; 1 Silent"},
		{"one came back", "Failed", "", map[string]uint32{"Succeeded": 12, "RolledBack": 1, "Refused": 2, "Fetching": 25}, Failure,
			"12 of 40 clusters run 1.4.0; 2 Refused; 1 RolledBack; 25 under way"},
		{"one is broken", "Failed", "", map[string]uint32{"Succeeded": 39, "RollbackFailed": 1}, Error, "39 of 40 clusters run 1.4.0; 1 RollbackFailed"},
		{"recalled", "Failed", "recalled", map[string]uint32{"Succeeded": 3}, Failure, "3 of 3 clusters run 1.4.0; recalled"},
		{"nobody wants it", "Underway", "no cluster has it yet", nil, Pending, "no cluster is to run 1.4.0; no cluster has it yet"},
		{"many", "Underway", "", map[string]uint32{"Succeeded": 4711, "Offered": 5289}, Pending, "47 % of 10000 clusters run 1.4.0"},
		{"many, some bad", "Failed", "", map[string]uint32{"Succeeded": 9998, "RolledBack": 2}, Failure, "99 % of 10000 clusters run 1.4.0; 2 RolledBack"},
	} {
		s, ok := StatusOf(&pluginv1.Event{Distribution: "app", VersionTo: "1.4.0", Tag: "1.4.0", Commit: commit, Phase: test.phase, Message: test.why, Summary: test.summary})
		if !ok || s.State != test.state || s.Description != test.text || s.Context != "wheelwright/app/1.4.0" || s.Commit != commit {
			t.Errorf("%s: %+v", test.name, s)
		}
	}
	// One cluster's news, and a rollout's, is no news of the commit.
	for name, e := range map[string]*pluginv1.Event{"installed": events()["installed"], "a rollout": {Phase: "Completed"},
		"a phase of tomorrow": {Phase: "Levitating", Summary: map[string]uint32{"Succeeded": 1}}, "of one cluster": {Cluster: "acme/eu-1", Phase: "Failed"}} {
		if s, ok := StatusOf(e); ok {
			t.Errorf("%s: %+v", name, s)
		}
	}
	long := map[string]uint32{"RolledBack": 4e9, "Refused": 4e9, "RollbackFailed": 4e9}
	if s, _ := StatusOf(&pluginv1.Event{Phase: "Failed", Summary: long, Message: strings.Repeat("x", 200)}); len([]rune(s.Description)) > 140 {
		t.Errorf("%d characters", len(s.Description))
	}
}

func TestRepository(t *testing.T) {
	for address, want := range map[string]string{
		"https://github.com/vendor/app.git":          "github.com vendor/app",
		"https://ann:pw@git.example.org:8443/a/b/c/": "git.example.org:8443 a/b/c",
		"ssh://git@git.example.org:2222/a/b.git":     "git.example.org a/b",
		"git@github.com:vendor/app.git":              "github.com vendor/app",
		"vendor/app":                                 "",
		"/srv/git/app.git":                           "",
		"file:///srv/git/app.git":                    "",
		"https://github.com/app":                     "",
		"https://github.com/a/../b":                  "",
		"":                                           "",
	} {
		host, path, err := Repository(address)
		if got := strings.TrimSpace(host + " " + path); got != want || (err == nil) != (want != "") {
			t.Errorf("%s: %q, %v", address, got, err)
		}
	}
	if CheckCommit(commit) != nil || CheckCommit("main") == nil || CheckCommit("../../x") == nil {
		t.Error("what is a commit")
	}
}
