package redact_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/redact"
)

const value = "kD7f-Qz19+Xw/p3Lm=="

// Law 10: in whatever form a program writes a value.
func TestValuesInEveryForm(t *testing.T) {
	s := redact.Of([]string{value, "two words\nand a second-line 77", "it's \"quoted\" & <odd>"})
	quoted, _ := json.Marshal(map[string]string{"a": "it's \"quoted\" & <odd>", "b": value})
	for name, text := range map[string]string{
		"raw":           "the value is " + value + ".",
		"go quoted":     fmt.Sprintf("%q", value),
		"json":          string(quoted),
		"query":         "https://example.com/?x=" + url.QueryEscape(value),
		"path":          "https://example.com/" + url.PathEscape(value),
		"hex":           fmt.Sprintf("%x %X", value, value),
		"base64 0":      base64.StdEncoding.EncodeToString([]byte(value)),
		"base64 1":      base64.StdEncoding.EncodeToString([]byte("x" + value + "yy")),
		"base64 2":      base64.RawURLEncoding.EncodeToString([]byte("xx" + value + "y")),
		"a line":        "line: and a second-line 77",
		"one line":      "two words and a second-line 77",
		"cut":           "cannot unmarshal !!str `kD7f-Qz...` into int",
		"cut by us":     "value kD7f-Qz19+…",
		"at the end":    "value kD7f-Qz19+X",
		"twice quoted":  strconv.Quote(strconv.Quote("it's \"quoted\" & <odd>")),
		"within itself": "kD7f-" + value,
	} {
		got := s.Text(text)
		for _, bad := range []string{"Qz19", "UXoxOS", "kD7f-Q", "second-line", "quoted", "7a3139", "7A3139"} {
			if strings.Contains(got, bad) {
				t.Errorf("%s: %q holds %q", name, got, bad)
			}
		}
	}
}

func TestWhatIsNoValueStays(t *testing.T) {
	s := redact.New()
	s.Know("a", []string{"true", "8080", "backend", "postgres", "short", value}, "Deployment shop/backend", "vendor: postgres")
	for _, text := range []string{"Deployment shop/backend: not ready", "postgres is true on 8080", "", "x…", "and so on..."} {
		if got := s.Text(text); got != text {
			t.Errorf("%q became %q", text, got)
		}
	}
	s.Know("a", nil)
	if got := s.Text(value); got != value {
		t.Errorf("what was forgotten is still taken out: %q", got)
	}
	if (*redact.Sink)(nil).Text("x") != "x" || !(*redact.Sink)(nil).Knows("x") {
		t.Error("no sink")
	}
}

// What is named now and then is not forgotten for what is told once.
func TestWhatIsNamedIsKept(t *testing.T) {
	s := redact.New()
	s.Know("runs", []string{value})
	s.Know("once", []string{"told-only-once"})
	for n := range 100 {
		s.Know(fmt.Sprint(n), []string{fmt.Sprint("something-", n)})
		if !s.Knows("runs") {
			t.Fatal("it is forgotten")
		}
	}
	if s.Text(value) != "…" || s.Knows("once") || s.Text("told-only-once") == "…" {
		t.Error("the wrong one is forgotten")
	}
}

// Values that overlap in a text leave nothing of each other.
func TestOverlappingValues(t *testing.T) {
	if got := redact.Of([]string{"abcdefgh", "efghijkl", "cdefgh"}).Text("<abcdefghijkl>"); got != "<…>" {
		t.Error(got)
	}
}

func TestShapes(t *testing.T) {
	for in, want := range map[string]string{
		"two\nlines\tand  more": "two lines and more",
		`Secret app/db: data.password: Invalid value: "hunter2": must be base64`:               `Secret app/db: data.password: Invalid value: …: must be base64`,
		`spec.replicas: Invalid value: -1: must be positive`:                                   `spec.replicas: Invalid value: …: must be positive`,
		`clone https://user:pa55@git.example.com/x: refused`:                                   `clone https://…@git.example.com/x: refused`,
		`cannot patch {"password":"hunter2","user":"shop","host":"db.example.com"} here`:       `cannot patch {…} here`,
		`parse "redis://u:p@cache" failed`:                                                     `parse "redis://…@cache" failed`,
		`Authorization: Bearer abcdefghij.klm`:                                                 `Authorization: …`,
		"identity AGE-SECRET-KEY-1QQQQQQ and more":                                             "identity … and more",
		"key -----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY----- is not usable": "key … is not usable",
	} {
		if got := redact.Line(in, 500); got != want {
			t.Errorf("got  %s\nwant %s", got, want)
		}
	}
	if n := len([]rune(redact.Line(strings.Repeat("x", 1000), 500))); n != 500 {
		t.Errorf("%d characters", n)
	}
}

type address struct{ Host, Password string }

type secretly string

func (s secretly) LogValue() slog.Value { return slog.StringValue(string(s)) }

func TestLogs(t *testing.T) {
	var b bytes.Buffer
	s := redact.Of([]string{value})
	log := slog.New(s.Handler(slog.NewJSONHandler(&b, &slog.HandlerOptions{Level: slog.LevelDebug}))).With("with", value)
	log.WithGroup("g").Debug("message "+value, "text", value, "error", errors.New("x "+value), "list", []string{"a", value},
		"struct", address{"db", value}, "pointer", &address{"db", value}, "map", map[string]any{"k": value}, "bytes", []byte(value), "resolved", secretly(value),
		slog.Group("group", "inner", value), value, "key", "count", 7)
	if strings.Contains(b.String(), "Qz19") || !strings.Contains(b.String(), `"count":7`) || !strings.Contains(b.String(), `"list":["a","…"]`) {
		t.Error(b.String())
	}
}

// The cost for a spoke that knows many values..
func BenchmarkText(b *testing.B) {
	var values []string
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		values = append(values, fmt.Sprintf("%x", r.Uint64()))
	}
	s := redact.Of(values)
	text := strings.Repeat("Deployment shop/backend: containers with unready status: [backend] ", 5)
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		s.Text(text)
	}
}
