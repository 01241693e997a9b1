package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/webhook"
)

// settings are what the arguments say. Without any, everything is run that a release declares.
type settings struct {
	without    []string // of kinds()
	noAnswer   webhook.Policy
	throughAPI bool // probes over HTTP go through the API server
	jobTimeout time.Duration
	own        []probe.Probe // the provider's, beside the release's
}

const (
	kindWebhooks = "webhooks"
	kindJobs     = "jobs"
	kindProbes   = "probes"
)

func kinds() []string { return []string{kindWebhooks, kindJobs, kindProbes} }

const usage = `usage: conformance [flags]

Runs what a release declares: webhooks of Flagger's Canary objects, Jobs and Pods annotated with
wheelwright.dev/test or helm.sh/hook: test, and the tests of wheelwright.yaml. It needs no argument.

`

// parse reads the arguments and the file that they name. It tells all problems at once.
func parse(args []string, read func(string) ([]byte, error), stderr io.Writer) (settings, error) {
	flags := flag.NewFlagSet("conformance", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	var s settings
	var without, noAnswer, via, file string
	flags.StringVar(&without, "without", "", "what is not run: webhooks, jobs, probes, with commas between")
	flags.StringVar(&noAnswer, "no-answer", string(webhook.Hold), "what it means that a webhook that tests gives no answer: hold or fail")
	flags.StringVar(&via, "via", "direct", "how probes over HTTP reach a Service: direct, or proxy through the API server")
	flags.DurationVar(&s.jobTimeout, "job-timeout", 5*time.Minute, "how long a Job or Pod may take that does not say so itself")
	flags.StringVar(&file, "tests", "", "a file with tests of the provider's own, in the form of wheelwright.yaml's")
	if len(args) == 1 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return s, flag.ErrHelp
	}
	if err := flags.Parse(args); err != nil {
		return s, err
	}
	var problems []error
	add := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if flags.NArg() > 0 {
		add("%q: no argument is taken beside the flags", flags.Arg(0))
	}
	for kind := range strings.SplitSeq(without, ",") {
		switch kind = strings.TrimSpace(kind); {
		case kind == "":
		case !slices.Contains(kinds(), kind):
			add("--without: %q is none of %s", kind, strings.Join(kinds(), ", "))
		default:
			s.without = append(s.without, kind)
		}
	}
	s.noAnswer = webhook.Policy(noAnswer)
	if s.noAnswer != webhook.Hold && s.noAnswer != webhook.Fail {
		add("--no-answer: %q is neither hold nor fail", noAnswer)
	}
	s.throughAPI = via == "proxy"
	if via != "direct" && via != "proxy" {
		add("--via: %q is neither direct nor proxy", via)
	}
	if s.jobTimeout < time.Second || s.jobTimeout > time.Hour {
		add("--job-timeout: %s: want 1s to 1h", s.jobTimeout)
	}
	if file != "" {
		data, err := read(file)
		if err != nil {
			add("--tests: %w", err)
		} else if s.own, err = probe.ReadFile(data); err != nil {
			add("--tests: %s: %w", file, err)
		}
	}
	return s, errors.Join(problems...)
}

func (s settings) runs(kind string) bool { return !slices.Contains(s.without, kind) }
