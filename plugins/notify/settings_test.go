package main

import (
	"errors"
	"flag"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

func vars(name string) string {
	return map[string]string{
		"SLACK": "https://hooks.slack.com/services/T0/B0/hunter2\n", "PLAIN": "http://hooks.example/hunter2", "WORDS": "hunter2",
		"TOKEN": "hunter2", "BASE64": "whsec_hunter2!", "AUTH": "Bearer hunter2",
	}[name]
}

func none(string) ([]byte, error) { return nil, os.ErrNotExist }

func TestSettings(t *testing.T) {
	s, err := parse(strings.Fields("slack --url-from SLACK"), vars, none, io.Discard)
	if err != nil || s.url != "https://hooks.slack.com/services/T0/B0/hunter2" || s.tell != "attention" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = parse(strings.Fields("webhook --url https://in.example/x --secret-from WORDS --header-from authorization=AUTH --tell all"), vars, none, io.Discard)
	if err != nil || s.secret != "hunter2" || s.header.Get("Authorization") != "Bearer hunter2" || s.tell != "all" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = parse(strings.Fields("github --token-from TOKEN"), vars, none, io.Discard)
	if err != nil || s.api != "https://api.github.com" || s.token != "hunter2" {
		t.Errorf("%+v, %v", s, err)
	}
	s, err = parse(strings.Fields("gitlab --token-from TOKEN --api https://git.example/api/v4/ --repository a/b"), vars, none, io.Discard)
	if err != nil || s.api != "https://git.example/api/v4" || s.repository != "a/b" {
		t.Errorf("%+v, %v", s, err)
	}
	var said strings.Builder
	if _, err := parse([]string{"help"}, vars, none, &said); !errors.Is(err, flag.ErrHelp) || !strings.Contains(said.String(), "--token-from VAR") {
		t.Errorf("%v %s", err, said.String())
	}
}

// All problems at once, each by its flag, and never what a variable holds.
func TestProblems(t *testing.T) {
	for args, want := range map[string][]string{
		"":                               {`"" is no kind: slack, teams, webhook, github and gitlab are`},
		"pigeon":                         {`"pigeon" is no kind`},
		"slack":                          {"--url-from: name the variable with the address"},
		"slack --colour red":             {"flag provided but not defined: -colour"},
		"slack --url-from NOBODY":        {"--url-from: the variable NOBODY is empty"},
		"slack --url-from PLAIN":         {"it is http, which anybody on the way reads"},
		"slack --url-from WORDS":         {"it is not an https URL"},
		"slack --url-from SLACK extra":   {`"extra": no argument is taken beside the kind`},
		"teams --url-from SLACK --api x": {"--api: teams does not take it"},
		"webhook --url https://x --url-from SLACK --secret-from BASE64": {"--url and --url-from: give one", "--secret-from: BASE64: the secret begins with whsec_"},
		"webhook --url https://x --header-from AUTH":                    {`--header-from: "AUTH" is not NAME=VAR`},
		"webhook --url https://x --header-from A=NOBODY":                {"--header-from: the variable NOBODY is empty"},
		"webhook --url https://x --ca absent.pem":                       {"--ca: file does not exist"},
		"github --repository app --api http://x --tell some --sample": {"--sample: github does not take it", "--tell: \"some\" is none of", "--token-from: name the variable",
			"--api: it is http", `--repository: "app" is not OWNER/NAME`},
	} {
		_, err := parse(strings.Fields(args), vars, none, io.Discard)
		for _, part := range want {
			if err == nil || !strings.Contains(err.Error(), part) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, want %s", args, err, part)
			}
		}
	}
	broken := func(string) ([]byte, error) { return []byte("hello"), nil }
	if _, err := parse(strings.Fields("slack --url-from SLACK --ca x"), vars, broken, io.Discard); err == nil || !strings.Contains(err.Error(), "--ca: the file of authorities has no certificate") {
		t.Errorf("%v", err)
	}
}

func TestSecretsAreKnownToTheCourier(t *testing.T) {
	s := settings{url: "u", secret: "s", token: "t", header: http.Header{"A": {"h"}}}
	if got := strings.Join(s.secrets(), " "); got != "u s t h" {
		t.Errorf("%q", got)
	}
}
