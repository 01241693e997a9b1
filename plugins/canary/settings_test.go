package main

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"
	"time"
)

func TestSettings(t *testing.T) {
	env := func(name string) string { return map[string]string{"TOKEN": " t0k "}[name] }
	read := func(string) ([]byte, error) { return nil, errors.New("no such file") }
	s, err := parse([]string{"--router", "istio", "--prometheus", "https://prometheus.example/", "--prometheus-token-from", "TOKEN", "--drain", "1s", "--selector-keys", "tier,app"}, env, read, io.Discard)
	if err != nil || s.router != "istio" || s.drain != time.Second || s.minimum != 20 || string(s.prometheus.Secret["token"]) != "t0k" || len(s.selectorKeys) != 2 {
		t.Errorf("got %+v, %v", s, err)
	}
	if s, err = parse(nil, env, read, io.Discard); err != nil || s.router != "none" || s.prometheus.Address != "" || s.drain != 5*time.Second || s.rate != 0 {
		t.Errorf("got %+v, %v", s, err)
	}
	_, err = parse([]string{"--router", "envoy", "--prometheus", "prometheus", "--prometheus-token-from", "NOPE", "--prometheus-ca", "ca.pem", "--drain", "2h", "--hand-over", "somebody", "--selector-keys", " ", "more"}, env, read, io.Discard)
	for _, want := range []string{"--router: router \"envoy\" is not known", "--prometheus: ", "--prometheus-token-from: the variable NOPE is empty", "--prometheus-ca: no such file", "--drain: 2h0m0s", `--hand-over: "somebody"`, "--selector-keys: ", `"more": no argument`} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for text, want := range map[string]string{
		"-1": "--generate-load: -1 is none of 0.1 to 100 requests a second", "NaN": "--generate-load: NaN is none", "+Inf": "--generate-load: +Inf is none", "0.01": "--generate-load: 0.01 is none",
		"5000": "--generate-load: 5000 is none of 0.1 to 100 requests a second, nor 0, which makes none; a load test belongs to the release, as a webhook of type rollout", "many": "generate-load",
	} {
		if _, err := parse([]string{"--generate-load", text}, env, read, io.Discard); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	for text, want := range map[string]float64{"0": 0, "0.1": 0.1, "5": 5, "100": 100} {
		if s, err := parse([]string{"--generate-load", text}, env, read, io.Discard); err != nil || s.rate != want {
			t.Errorf("%s: got %v, %v", text, s.rate, err)
		}
	}
	if _, err = parse([]string{"--wat"}, env, read, io.Discard); err == nil || !strings.Contains(err.Error(), "canary -h") {
		t.Errorf("got %v", err)
	}
	var help strings.Builder
	if _, err = parse([]string{"-h"}, env, read, &help); !errors.Is(err, flag.ErrHelp) || !strings.Contains(help.String(), "minimum-sample") {
		t.Errorf("got %v, %s", err, help.String())
	}
}
