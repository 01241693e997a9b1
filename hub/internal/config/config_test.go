package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
)

const full = `
version: 1
listen: 0.0.0.0:7443
advertise: [hub.example.com:7443, 10.0.0.1, "::1"]
metrics: :9090
poll: 1m
heartbeat: 5s
renewAfterExpiry: 0s
connectionAge: 0s
bundles: {bytesPerSecond: 1000000, fetches: 7}
log: {level: debug, format: json}
`

func TestParse(t *testing.T) {
	got, err := Parse("hub.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Listen: "0.0.0.0:7443", Advertise: []string{"hub.example.com:7443", "10.0.0.1", "::1"}, Metrics: ":9090",
		Poll: time.Minute, Heartbeat: 5 * time.Second, RenewAfterExpiry: new(time.Duration), ConnectionAge: new(time.Duration), BundleRate: 1_000_000, BundleFetches: 7, LogLevel: "debug", LogFormat: "json"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got, err := Parse("hub.yaml", []byte("version: 1\nadvertise: hub:1\n")); err != nil || !reflect.DeepEqual(got.Advertise, []string{"hub:1"}) {
		t.Errorf("one host: got %+v, %v", got, err)
	}
	if got, err := Parse("hub.yaml", []byte("version: 1\n")); err != nil || !reflect.DeepEqual(got, Config{}) {
		t.Errorf("only a version: got %+v, %v", got, err)
	}
}

func TestEveryProblemIsReportedAtOnce(t *testing.T) {
	_, err := Parse("hub.yaml", []byte(`
version: 2
listen: nowhere
advertise: [":1", 7, "a:b:c"]
metrics: 9090
poll: 1ms
heartbeat: often
connectionAge: 1m
lgo: {}
bundles: {bytesPerSecond: 1000, fetches: 1.5, fetch: 1}
log: {level: loud, fromat: text}
`))
	var p *Problems
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want Problems", err)
	}
	want := []string{"lgo: unknown key", "version: is 2", "listen: ", "metrics: ", "advertise[0]: ", "advertise[1]: ", "advertise[2]: ",
		"poll: ", "heartbeat: ", "connectionAge: 1m0s: want at least 10m0s", "bundles.fetch: unknown key", "bundles.bytesPerSecond: 1000: want", "bundles.fetches: 1.5: want", "log.fromat: unknown key", "log.level: "}
	if len(p.List) != len(want) {
		t.Errorf("got %d problems, want %d", len(p.List), len(want))
	}
	for _, w := range want {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("%q is not in:\n%v", w, err)
		}
	}
}

func TestFilesThatAreNone(t *testing.T) {
	for name, text := range map[string]string{"no version": "listen: :1\n", "twice": "version: 1\nversion: 1\n", "no yaml": "\t", "a list": "- 1\n",
		"log is text": "version: 1\nlog: loud\n", "bundles is a number": "version: 1\nbundles: 3\n",
		"history is text": "version: 1\nhistory: long\n", "too short a history": "version: 1\nhistory: {events: 3}\n", "half an event": "version: 1\nhistory: {events: 1000.5}\n", "advertise is a number": "version: 1\nadvertise: 7\n"} {
		if _, err := Parse("hub.yaml", []byte(text)); err == nil || !strings.Contains(err.Error(), "hub.yaml") {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := Load(filepath.Join(t.TempDir(), "hub.yaml")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}

func TestTheExamplesLoad(t *testing.T) {
	examples, err := filepath.Glob("../../../deploy/*/hub.yaml")
	if err != nil || len(examples) != 2 {
		t.Fatalf("got %v, %v, want the base's and the one with every key", examples, err)
	}
	for _, e := range examples {
		if _, err := Load(e); err != nil {
			t.Error(err)
		}
	}
	text, err := os.ReadFile("../../../deploy/examples/hub.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := Parse("hub.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	for n, v := 0, reflect.ValueOf(c); n < v.NumField(); n++ {
		if name := v.Type().Field(n).Name; v.Field(n).IsZero() && name != "Git" && name != "Plugins" && name != "OIDC" { // those stand there as comments
			t.Errorf("the example does not show %s", name)
		}
	}
	// The list of credentials names files, so it stands there as a comment.
	_, commented, _ := strings.Cut(string(text), "\n# git:")
	commented, _, _ = strings.Cut(commented, "\n\n")
	_, err = Parse("hub.yaml", []byte("version: 1\ngit:"+strings.ReplaceAll(commented, "\n# ", "\n")))
	var p *Problems
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want the files missed", err)
	}
	for _, line := range p.List {
		if !strings.Contains(line, "no such file") {
			t.Error(line)
		}
	}
	for _, key := range gitrepo.CredentialKeys() {
		if !strings.Contains(commented, key+":") {
			t.Errorf("the example does not show %s", key)
		}
	}
}

func TestPlansOfRollouts(t *testing.T) {
	c, err := Parse("hub.yaml", []byte(`version: 1
rollouts:
  shop:
    start: manual
    waves: [{name: canary, max: 1, soak: 30m}, {name: everyone}]
  bank:
    onFailure: rollBackAll
    waves: [{name: everyone}]
`))
	if err != nil || len(c.Rollouts) != 2 {
		t.Fatalf("got %+v, %v", c.Rollouts, err)
	}
	if p := c.Rollouts["shop"]; p.Start != plan.Manual || len(p.Waves) != 2 || p.Waves[0].Soak != 30*time.Minute || p.Waves[0].Max.N != 1 {
		t.Errorf("got %+v", p)
	}
	_, err = Parse("hub.yaml", []byte(`version: 1
pol: 1s
rollouts:
  Shop: {waves: [{name: everyone}]}
  bank: {waves: [{name: one, concurrency: 101%, soak: long}], onfailure: hold}
  till: fast
`))
	for _, want := range []string{"pol: unknown key", "rollouts.Shop: ", "rollouts.bank.waves[0].concurrency: ", "rollouts.bank.waves[0].soak: ", "rollouts.bank.onfailure: ", "rollouts.till: "} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in: %v", want, err)
		}
	}
	if _, err := Parse("hub.yaml", []byte("version: 1\nrollouts: [shop]\n")); err == nil || !strings.Contains(err.Error(), "rollouts: want a mapping") {
		t.Errorf("a list: got %v", err)
	}
}

func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "token"), []byte("hushhush\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "hub.yaml")
	load := func(text string) (Config, error) {
		if err := os.WriteFile(path, []byte("version: 1\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		return Load(path)
	}
	c, err := load("git:\n- {url: git.example.com, passwordFile: token}\n")
	want := gitrepo.Credentials{{URL: "git.example.com", PasswordFile: filepath.Join(dir, "token")}}
	if err != nil || !reflect.DeepEqual(c.Git, want) {
		t.Errorf("got %+v, %v, want %+v", c.Git, err, want)
	}
	for text, wants := range map[string][]string{
		"git: token":  {"git: want a list"},
		"git: [a]":    {"git[0]: want a mapping"},
		"git: [null]": {"git[0]: want a mapping"},
		"git:\n- {url: a.example.com, sshkey: k, passwordFile: token}\n- {url: https://b.example.com, sshKey: none, passwordFile: 7}\n": {
			"has 4 problems", "git[0].sshkey: unknown key", "git[1].passwordFile: want text", "git[1].sshKey: is for ssh", filepath.Join(dir, "none")},
	} {
		_, err := load(text)
		for _, w := range wants {
			if err == nil || !strings.Contains(err.Error(), w) {
				t.Errorf("%s: got %v, want %s", text, err, w)
			}
		}
	}
}
