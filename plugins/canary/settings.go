package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/follow"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/load"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/measure"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/route"
	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/strategy"
)

// settings are what the arguments say, checked, with the secrets that they point at.
type settings struct {
	router       string // of Canaries that name no provider
	selectorKeys []string
	options      []route.Option
	drain        time.Duration
	prometheus   measure.Config // no Address: there is none
	minimum      uint64
	rate         float64 // requests a second to each candidate that nobody uses; 0: none
	handOver     string  // who leads instead: flagger, argo-rollouts, auto or none
}

const usage = `usage: canary [flags]

VAR is the name of an environment variable: secrets are never arguments.

`

// parse tells all problems at once, and no value of a variable.
func parse(args []string, env func(string) string, read func(string) ([]byte, error), stderr io.Writer) (settings, error) {
	flags := flag.NewFlagSet("canary", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	s := settings{prometheus: measure.Config{Secret: map[string][]byte{}}}
	var token, username, password, authorities, keys, prefix string
	var wholeMirrors bool
	flags.StringVar(&s.router, "router", strategy.RouterNone, "what leads the services whose Canary names no provider: none, istio, linkerd, nginx or gatewayapi:v1")
	flags.StringVar(&s.prometheus.Address, "prometheus", "", "the address of Prometheus; left out: the state of the pods is what is measured")
	flags.StringVar(&token, "prometheus-token-from", "", "VAR with a token for it")
	flags.StringVar(&username, "prometheus-username-from", "", "VAR with a name for it")
	flags.StringVar(&password, "prometheus-password-from", "", "VAR with the name's password")
	flags.StringVar(&authorities, "prometheus-ca", "", "a file of certificate authorities in PEM to believe instead of the system's")
	flags.Uint64Var(&s.minimum, "minimum-sample", 20, "how many requests a verdict rests on at least")
	flags.Float64Var(&s.rate, "generate-load", 0, "how many requests a second are made to each candidate that gets too few to be judged (0.1 to 100); 0: none")
	flags.DurationVar(&s.drain, "drain", 5*time.Second, "between the last traffic and the end of a candidate")
	flags.StringVar(&keys, "selector-keys", strings.Join(strategy.SelectorKeys(), ","), "the labels that tell workloads apart, the first one present counts")
	flags.StringVar(&prefix, "nginx-annotation-prefix", "", "that of ingress-nginx, where it has another one")
	flags.StringVar(&s.handOver, "hand-over", handNone, "who leads instead of the plugin, which then follows: flagger, argo-rollouts, auto (whoever leads already) or none")
	flags.BoolVar(&wholeMirrors, "gateway-mirrors-all", false, "the Gateway API is older than 1.3: it mirrors everything or nothing")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return s, flag.ErrHelp
	} else if err != nil {
		return s, fmt.Errorf("%w; `canary -h` says what there is", err)
	}
	var problems []error
	wrong := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if flags.NArg() > 0 {
		wrong("%q: no argument is taken", flags.Arg(0))
	}
	if _, err := route.For(s.router); err != nil {
		wrong("--router: %w", err)
	}
	if !slices.Contains([]string{follow.Flagger, follow.Rollouts, handAuto, handNone}, s.handOver) {
		wrong("--hand-over: %q is none of flagger, argo-rollouts, auto and none", s.handOver)
	}
	if s.rate != 0 && !(s.rate >= load.Slowest && s.rate <= load.Fastest) { // which NaN is not
		wrong("--generate-load: %g is none of %g to %d requests a second, nor 0, which makes none; a load test belongs to the release, as a webhook of type rollout", s.rate, load.Slowest, load.Fastest)
	}
	if s.drain < 0 || s.drain > time.Hour {
		wrong("--drain: %s is none of 0s to 1h", s.drain)
	}
	s.selectorKeys = strings.FieldsFunc(keys, func(r rune) bool { return r == ',' || r == ' ' })
	if len(s.selectorKeys) == 0 {
		wrong("--selector-keys: name at least one label")
	}
	if prefix != "" {
		s.options = append(s.options, route.WithAnnotationPrefix(prefix))
	}
	if wholeMirrors {
		s.options = append(s.options, route.WithoutMirrorPercent())
	}
	for key, name := range map[string]string{"token": token, "username": username, "password": password} {
		if name == "" {
			continue
		}
		if s.prometheus.Secret[key] = []byte(strings.TrimSpace(env(name))); len(s.prometheus.Secret[key]) == 0 {
			wrong("--prometheus-%s-from: the variable %s is empty: give it under env of the plugin in spoke.yaml", key, name)
		}
	}
	if authorities != "" {
		var err error
		if s.prometheus.Secret["ca.crt"], err = read(authorities); err != nil {
			wrong("--prometheus-ca: %w", err)
		}
	}
	if s.prometheus.Address != "" {
		if _, err := measure.NewPrometheus(s.prometheus); err != nil {
			wrong("--prometheus: %w", err)
		}
	} else if len(s.prometheus.Secret) > 0 {
		wrong("--prometheus: give its address")
	}
	return s, errors.Join(problems...)
}
