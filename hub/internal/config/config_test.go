package config

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

const full = `
version: 1
listen: 0.0.0.0:7443
advertise: [hub.example.com:7443, 10.0.0.1, "::1"]
metrics: :9090
poll: 1m
heartbeat: 5s
log: {level: debug, format: json}
`

func TestParse(t *testing.T) {
	got, err := Parse("hub.yaml", []byte(full))
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Listen: "0.0.0.0:7443", Advertise: []string{"hub.example.com:7443", "10.0.0.1", "::1"}, Metrics: ":9090",
		Poll: time.Minute, Heartbeat: 5 * time.Second, LogLevel: "debug", LogFormat: "json"}
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
lgo: {}
log: {level: loud, fromat: text}
`))
	var p *Problems
	if !errors.As(err, &p) {
		t.Fatalf("got %v, want Problems", err)
	}
	want := []string{"lgo: unknown key", "version: is 2", "listen: ", "metrics: ", "advertise[0]: ", "advertise[1]: ", "advertise[2]: ",
		"poll: ", "heartbeat: ", "log.fromat: unknown key", "log.level: "}
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
		"log is text": "version: 1\nlog: loud\n", "advertise is a number": "version: 1\nadvertise: 7\n"} {
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
	if err != nil || len(examples) == 0 {
		t.Fatalf("got %v, %v, want at least one under deploy", examples, err)
	}
	for _, e := range examples {
		if _, err := Load(e); err != nil {
			t.Error(err)
		}
	}
}
