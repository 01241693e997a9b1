package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/courier"
	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/message"
)

// settings are what the arguments say, checked, with the secrets that they point at.
type settings struct {
	kind       string
	url        string // Slack, Teams, webhook
	secret     string // webhook: key of the signature
	header     http.Header
	token      string // GitHub, GitLab
	api        string
	repository string // owner/name; empty: the event's
	tell       string
	sample     bool
	courier    *courier.Courier
}

const usage = `usage: notify KIND [flags]

  slack    --url-from VAR                                     an incoming webhook
  teams    --url-from VAR                                     a workflow that takes webhook requests
  webhook  --url URL | --url-from VAR  [--secret-from VAR] [--header-from NAME=VAR]
  github   --token-from VAR [--api URL] [--repository OWNER/NAME]   the status of the release's commit
  gitlab   --token-from VAR [--api URL] [--repository GROUP/NAME]

VAR is the name of an environment variable: secrets are never arguments.

`

// kinds lists the flags that each takes beside the common ones.
func kinds() map[string]string {
	return map[string]string{
		"slack": "url-from sample", "teams": "url-from sample", "webhook": "url url-from secret-from header-from sample",
		"github": "token-from api repository", "gitlab": "token-from api repository",
	}
}

// parse reads the arguments, the variables that they name and the file of authorities. It tells all
// problems at once, and no value of a variable.
func parse(args []string, env func(string) string, read func(string) ([]byte, error), stderr io.Writer) (settings, error) {
	flags := flag.NewFlagSet("notify", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	flags.Usage = func() {}
	var s settings
	var urlFrom, secretFrom, headerFrom, tokenFrom, authorities string
	var plain bool
	flags.StringVar(&s.url, "url", "", "the receiver's address, where it is no secret")
	flags.StringVar(&urlFrom, "url-from", "", "the variable with the address")
	flags.StringVar(&secretFrom, "secret-from", "", "the variable with the key that bodies are signed with")
	flags.StringVar(&headerFrom, "header-from", "", "NAME=VAR: a header with the variable's value, such as Authorization=HOOK_AUTH")
	flags.StringVar(&tokenFrom, "token-from", "", "the variable with a token that may set commit statuses")
	flags.StringVar(&s.api, "api", "", "the API's address; left out: that of github.com or gitlab.com")
	flags.StringVar(&s.repository, "repository", "", "whose commits get the status; left out: the one that the event names")
	flags.StringVar(&s.tell, "tell", "attention", "terminal: how deliveries end; attention: and what is worth a look; all: everything")
	flags.StringVar(&authorities, "ca", "", "a file of certificate authorities in PEM to believe instead of the system's")
	flags.BoolVar(&plain, "plain-http", false, "allow http")
	flags.BoolVar(&s.sample, "sample", false, "send one made-up event to a chat or a webhook and end")

	if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "help") {
		fmt.Fprint(stderr, usage)
		flags.SetOutput(stderr)
		flags.PrintDefaults()
		return s, flag.ErrHelp
	}
	takes, known := "", false
	if len(args) > 0 {
		s.kind = args[0]
		takes, known = kinds()[s.kind]
	}
	if !known {
		return s, fmt.Errorf("%q is no kind: slack, teams, webhook, github and gitlab are; `notify help` says more", s.kind)
	}
	if err := flags.Parse(args[1:]); err != nil {
		return s, err
	}
	p := problems{env: env}
	flags.Visit(func(f *flag.Flag) {
		if isOwn(f.Name) && !isIn(takes, f.Name) {
			p.add("--%s: %s does not take it", f.Name, s.kind)
		}
	})
	if flags.NArg() > 0 {
		p.add("%q: no argument is taken beside the kind", flags.Arg(0))
	}
	if s.tell != "terminal" && s.tell != "attention" && s.tell != "all" {
		p.add("--tell: %q is none of terminal, attention, all", s.tell)
	}
	config := courier.Config{PlainHTTP: plain}
	if authorities != "" {
		var err error
		if config.CA, err = read(authorities); err != nil {
			p.add("--ca: %w", err)
		}
	}
	if urlFrom != "" && s.url != "" {
		p.add("--url and --url-from: give one")
	}
	if urlFrom != "" {
		s.url = p.variable("--url-from", urlFrom)
	}
	s.secret = p.variable("--secret-from", secretFrom)
	s.token = p.variable("--token-from", tokenFrom)
	s.header = p.headerOf(headerFrom)
	config.Secrets = s.secrets()
	var err error
	if s.courier, err = courier.New(config); err != nil {
		p.add("--ca: %w", err)
		return s, p.all()
	}
	s.check(&p, urlFrom, tokenFrom, secretFrom)
	return s, p.all()
}

// check looks at what is needed and how it is written.
func (s *settings) check(p *problems, urlFrom, tokenFrom, secretFrom string) {
	switch s.kind {
	case "github", "gitlab":
		if tokenFrom == "" {
			p.add("--token-from: name the variable with the token")
		}
		if s.api == "" {
			s.api = map[string]string{"github": "https://api.github.com", "gitlab": "https://gitlab.com/api/v4"}[s.kind]
		}
		s.api = strings.TrimSuffix(s.api, "/")
		if err := s.courier.CheckURL(s.api); err != nil {
			p.add("--api: %w", err)
		}
		if s.repository != "" && !strings.Contains(s.repository, "/") {
			p.add("--repository: %q is not OWNER/NAME", s.repository)
		}
	default:
		switch err := s.courier.CheckURL(s.url); {
		case urlFrom == "" && s.url == "":
			p.add("--url-from: name the variable with the address")
		case s.url != "" && err != nil:
			p.add("--url or the variable of --url-from: %w", err)
		}
		if _, err := message.Sign(s.secret, "", epoch(), nil); err != nil {
			p.add("--secret-from: %s: %w", secretFrom, err)
		}
	}
}

// secrets is what must never be said: an address is one, for whoever has Slack's may write there.
func (s settings) secrets() []string {
	out := []string{s.url, s.secret, s.token}
	for _, values := range s.header {
		out = append(out, values...)
	}
	return out
}

func isIn(list, name string) bool { return strings.Contains(" "+list+" ", " "+name+" ") }

// isOwn tells the flags of some kinds from those that all take.
func isOwn(name string) bool {
	for _, list := range kinds() {
		if isIn(list, name) {
			return true
		}
	}
	return false
}

// problems collects.
type problems struct {
	env  func(string) string
	list []error
}

func (p *problems) add(format string, args ...any) {
	p.list = append(p.list, fmt.Errorf(format, args...))
}

func (p *problems) all() error { return errors.Join(p.list...) }

// variable reads one; a name without a value is a problem.
func (p *problems) variable(flag, name string) string {
	if name == "" {
		return ""
	}
	value := strings.TrimSpace(p.env(name))
	if value == "" {
		p.add("%s: the variable %s is empty: give it under the plugin's env", flag, name)
	}
	return value
}

func (p *problems) headerOf(pair string) http.Header {
	if pair == "" {
		return nil
	}
	name, from, ok := strings.Cut(pair, "=")
	if !ok || name == "" || from == "" {
		p.add("--header-from: %q is not NAME=VAR", pair)
		return nil
	}
	return http.Header{http.CanonicalHeaderKey(name): {p.variable("--header-from", from)}}
}
