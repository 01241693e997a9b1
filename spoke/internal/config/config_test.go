package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/terms"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "spoke.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheExampleLoads(t *testing.T) {
	dir, err := filepath.Abs("../../../deploy/examples")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Load(filepath.Join(dir, "spoke.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	pattern := func(s string) terms.Pattern {
		p, err := terms.ParsePattern(s)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	ours := terms.Terms{
		Ignore: []terms.Ignore{
			{Object: pattern("Deployment"), Fields: []terms.Path{{"metadata", "annotations", "example.com/last-restart"}, {"spec", "template", "spec", "containers", "name=agent", "resources"}}},
			{Object: pattern("StatefulSet/*/cache-*"), Manager: "vpa-recommender"},
		},
		Recreate: []terms.Pattern{pattern("Job"), pattern("Deployment/shop/legacy")},
		Delete:   []terms.Pattern{pattern("PersistentVolumeClaim/shop/old-data")},
		Budget:   terms.Budget{Percent: 20, AtLeast: 5},
		Drift:    terms.Correct,
	}
	queue := []rules.Rule{{Group: "example.com", Version: "v1", Kind: "Queue", Current: `status.phase == "Ready"`,
		InProgress: `status.phase == "Filling"`, Failed: `status.phase == "Broken"`, Message: `"the queue is " + status.phase`}}
	theirs := ours
	theirs.Recreate = append(slices.Clone(ours.Recreate), pattern("Service/shop/backend"))
	theirs.Budget.Percent = 10
	want := []Subscription{{
		Distribution: "shop", Variant: "app-kubernetes", Namespace: "shop", Source: []string{"https://github.com/example-vendor/shop"},
		Overlay: Overlay{Path: filepath.Join(dir, "provider")}, Policy: fleet.Policy{Range: "1.x", Patch: fleet.Automatic, Minor: fleet.Automatic, Major: fleet.AskFirst}, FromHub: FromHub{Pins: true}, Tests: DefaultTests(), Canary: DefaultCanary(),
		Terms: theirs, HealthTimeout: 10 * time.Minute, HookTimeout: 30 * time.Minute, ApprovalTimeout: 168 * time.Hour, Health: queue,
	}}
	if !reflect.DeepEqual(c.Subscriptions, want) {
		t.Errorf("got  %+v\nwant %+v", c.Subscriptions, want)
	}
	if !reflect.DeepEqual(c.Terms, ours) || c.HealthTimeout != 5*time.Minute || c.ApprovalTimeout != DefaultApprovalTimeout || !reflect.DeepEqual(c.Health, queue) {
		t.Errorf("the defaults are %+v", c)
	}
	if _, err := os.Stat(filepath.Join(c.Subscriptions[0].Overlay.Path, "kustomization.yaml")); err != nil {
		t.Error(err)
	}
	// Every key that the decoder knows is shown, commented out or not.
	text, err := os.ReadFile(c.Path)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"version", "kubeconfig", "context", "healthTimeout", "approvalTimeout", "drift", "ignore", "object", "fields", "manager",
		"recreate", "delete", "deletionBudget", "percent", "atLeast", "health", "apiVersion", "kind", "current", "inProgress", "failed", "message", "subscriptions", "distribution", "variant",
		"namespace", "source", "overlay", "path", "git", "revision", "interval", "versions", "range", "prereleases", "pin", "pinReason", "pinUntil", "patch", "minor", "major", "decryption", "age", "windows", "fromHub", "pins", "decisions",
		"url", "sshKey", "knownHosts", "username", "passwordFile", "authorities",
		"plugins", "name", "sha256", "kinds", "args", "env", "timeout", "permissions", "serviceAccount", "rules", "apiGroups", "resources", "verbs"} {
		if !strings.Contains(string(text), key+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func TestLoad(t *testing.T) {
	path := write(t, `
version: 1
subscriptions:
- distribution: shop
  namespace: shop
  overlay: { git: ../platform, path: app/, interval: 5s }
  versions: { pin: 1.2.0, pinReason: audit, prereleases: true }
- {distribution: mail, variant: default, namespace: mail, overlay: ~, healthTimeout: 30s}
drift: report
kubeconfig: kube/config
`)
	dir := filepath.Dir(path)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	first, err := fleet.ParseDigest(string(c.Digest))
	if err != nil {
		t.Fatal(err)
	}
	reported := terms.Default()
	reported.Drift = terms.Report
	want := Config{Path: path, Digest: first, Kubeconfig: filepath.Join(dir, "kube/config"), Terms: reported, HealthTimeout: DefaultHealthTimeout, HookTimeout: DefaultHookTimeout, ApprovalTimeout: DefaultApprovalTimeout, FromHub: FromHub{Pins: true}, Tests: DefaultTests(), Canary: DefaultCanary(),
		Subscriptions: []Subscription{
			{Distribution: "shop", Namespace: "shop", Overlay: Overlay{Git: filepath.Join(filepath.Dir(dir), "platform"), Path: "app", Revision: "main", Interval: 5 * time.Second},
				Policy: fleet.Policy{Prereleases: true, Pin: &fleet.Pin{Version: "1.2.0", Reason: "audit", Source: "spoke.yaml"}}, FromHub: FromHub{Pins: true}, Tests: DefaultTests(), Canary: DefaultCanary(),
				Terms: reported, HealthTimeout: DefaultHealthTimeout, HookTimeout: DefaultHookTimeout, ApprovalTimeout: DefaultApprovalTimeout},
			{Distribution: "mail", Variant: "default", Namespace: "mail", FromHub: FromHub{Pins: true}, Tests: DefaultTests(), Canary: DefaultCanary(), Terms: reported, HealthTimeout: 30 * time.Second, HookTimeout: DefaultHookTimeout, ApprovalTimeout: DefaultApprovalTimeout},
		}}
	if !reflect.DeepEqual(c, want) {
		t.Errorf("got  %+v\nwant %+v", c, want)
	}
	if !c.Subscriptions[1].Overlay.None() || c.Subscriptions[0].Overlay.None() {
		t.Error("None is wrong")
	}
	if err := os.WriteFile(path, []byte("version: 1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err = Load(path); err != nil || c.Digest == first || len(c.Subscriptions) != 0 {
		t.Errorf("after a change: %+v %v", c, err)
	}
}

func TestAllProblemsAtOnce(t *testing.T) {
	path := write(t, `version: 2
kubeConfig: x
context: a
context: b
healthTimeout: 5
drift: never
subscriptions:
- distribution: Shop
  variant: a/b
  namespace: Shop
  source: https://example.com/shop
  overlay: { revision: main }
  versions: { range: one, prereleases: sometimes, pin: "1.0", pinned: true }
- namespace: mail
  overlay: { path: ../outside, git: https://example.com/x }
  versions: { pinReason: because }
- text
- { distribution: mail, variant: v, namespace: n }
- { distribution: mail, variant: v, namespace: n, overlay: [a] }
`)
	_, err := Load(path)
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range all.Problems {
		got = append(got, p.String())
	}
	want := []string{
		`line 1: version: "2" is not known to this spoke: want 1`,
		`line 2: kubeConfig: unknown key; known here: approvalTimeout, canary, context, decryption, delete, deletionBudget, drift, envelope, fromHub, git, health, healthTimeout, hookTimeout, ignore, kubeconfig, operators, plugins, recreate, serviceAccount, signers, subscriptions, tests, version, windows`,
		`line 4: context: is there twice: first on line 3`,
		`line 5: healthTimeout: "5": want a duration with its unit, such as 90s or 24h`,
		`line 6: drift: "never": want correct, report or ignore`,
		`line 8: subscriptions[0].distribution: distribution name "Shop": want lower-case letters, digits and dashes, at most 40`,
		`line 9: subscriptions[0].variant: "a/b": want the name of one of the distribution's variants, such as app-kubernetes`,
		`line 10: subscriptions[0].namespace: "Shop": want lower-case letters, digits and dashes, at most 63`,
		`line 11: subscriptions[0].source: want a list, found "https://example.com/shop"`,
		`line 12: subscriptions[0].overlay.revision: is for a git repository: add ` + "`git: URL`" + `, or leave it out`,
		`line 12: subscriptions[0].overlay: names neither ` + "`path: FOLDER` nor `git: URL`",
		`line 13: subscriptions[0].versions.range: version range "one": improper constraint: "one" (such as ">=1.0.0 <2.0.0", "1.x", "~1.2")`,
		`line 13: subscriptions[0].versions.prereleases: want true or false, found "sometimes"`,
		`line 13: subscriptions[0].versions.pin: tag "1.0" is not a semantic version (want MAJOR.MINOR.PATCH)`,
		`line 13: subscriptions[0].versions.pinned: unknown key; known here: major, minor, patch, pin, pinReason, pinUntil, prereleases, range`,
		`line 14: subscriptions[1].distribution: missing: the name that the hub has for it`,
		`line 15: subscriptions[1].overlay.path: "../outside": want a path inside the repository, with slashes`,
		`line 16: subscriptions[1].versions.pinReason: there is no pin to give a reason for`,
		`line 17: subscriptions[2]: want keys and values, found "text"`,
		`line 19: subscriptions[4].overlay: want keys and values, found a list`,
		`line 19: subscriptions[4].distribution: mail is subscribed to on line 18 already`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if !strings.HasPrefix(err.Error(), "configuration "+path+": 21 problems:\n  line 1: ") {
		t.Errorf("got %v", err)
	}
}

func TestCredentials(t *testing.T) {
	path := write(t, `version: 1
subscriptions:
- {distribution: shop, namespace: shop, overlay: {git: "git@git.example.com:acme/shop"}}
- {distribution: mail, namespace: mail, overlay: {git: "https://elsewhere.example.com/mail"}}
- {distribution: chat, namespace: chat, overlay: {git: "https://git.example.com/acme/chat.git"}}
git:
- {url: git.example.com, passwordFile: token}
- url: https://git.example.com/acme
  username: spoke
  passwordFile: token
`)
	token := filepath.Join(filepath.Dir(path), "token")
	if err := os.WriteFile(token, []byte("hushhush"), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := []gitrepo.Credential{{URL: "git.example.com", PasswordFile: token}, {}, {URL: "https://git.example.com/acme", Username: "spoke", PasswordFile: token}}
	for i, s := range c.Subscriptions {
		if s.Overlay.Access != want[i] {
			t.Errorf("%s: got %+v, want %+v", s.Distribution, s.Overlay.Access, want[i])
		}
	}

	_, err = Load(write(t, `version: 1
git:
- text
- {url: a.example.com, sshkey: k, username: x}
- url: https://b.example.com
  sshKey: none
`))
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range all.Problems {
		text, _, _ := strings.Cut(p.String(), " open ") // what follows is the machine's
		got = append(got, text)
	}
	wantProblems := []string{
		`line 3: git[0]: want keys and values, found "text"`,
		`line 4: git[1].sshkey: unknown key; known here: authorities, knownHosts, passwordFile, sshKey, url, username`,
		`line 4: git[1].username: has no password: add passwordFile`,
		`line 6: git[2].sshKey: is for ssh, and the url is of https`,
	}
	if len(got) != 5 || !reflect.DeepEqual(got[:4], wantProblems) || !strings.Contains(got[4], "no such file") {
		t.Errorf("got:\n%s\nwant:\n%s\nand the missing file", strings.Join(got, "\n"), strings.Join(wantProblems, "\n"))
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for text, want := range map[string]string{
		"":                          "the file is empty",
		"# nothing\n":               "the file is empty",
		"a: [":                      "not YAML: line 1",
		"- a\n":                     "want keys and values, found a list",
		"subscriptions: []\n":       "version: missing",
		"version: 1\n---\na: b\n":   "second document",
		"version: 1\n<<: {a: b}\n":  "<<: unknown key",
		"version: [1]\n":            "version: want text, found a list",
		"version: 1\n? [a]\n: b\n":  "unknown key",
		"version: 1\nsubscriptions": "not YAML",
		"version: 1\nsubscriptions:\n- {distribution: a, namespace: a}\n": "subscriptions[0].variant: missing",
	} {
		if _, err := Load(write(t, text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %s", text, err, want)
		}
	}
	missing := filepath.Join(t.TempDir(), "none.yaml")
	if _, err := Load(missing); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), missing) || !strings.Contains(err.Error(), "--config") {
		t.Errorf("got %v", err)
	}
	if _, err := Load(t.TempDir()); err == nil {
		t.Error("a folder: want an error")
	}
}
