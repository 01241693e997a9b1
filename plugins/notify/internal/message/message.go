// Package message makes of one event of a delivery what a chat, a receiver of webhooks or a git host
// takes: Slack's blocks, an Adaptive Card for Teams, plain JSON, a commit's status. It is pure and sends
// nothing. What an event says comes from vendors and clusters, so nobody's text becomes markup: no
// mention, no link, no formatting.
package message

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
	"strings"
	"time"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// fact is one line of a message.
type fact struct{ name, value string }

// headline says what happened to what, where: "app 1.2.0 to 1.4.0 on acme/eu-1: RolledBack".
func headline(e *pluginv1.Event) string {
	s := e.GetDistribution()
	switch {
	case e.GetVersionFrom() != "" && e.GetVersionTo() != "" && e.GetVersionFrom() != e.GetVersionTo():
		s += " " + e.GetVersionFrom() + " to " + e.GetVersionTo()
	case e.GetVersionTo() != "":
		s += " " + e.GetVersionTo()
	}
	if e.GetCluster() != "" {
		s += " on " + e.GetCluster()
	}
	if e.GetPhase() != "" {
		s += ": " + e.GetPhase()
	}
	return plain(strings.TrimSpace(s), 150)
}

// facts are what is worth a line; what is not known has none.
func facts(e *pluginv1.Event) []fact {
	var out []fact
	add := func(name, value string) {
		if value != "" {
			out = append(out, fact{name, plain(value, 500)})
		}
	}
	add("Verdict", verdict(e.GetVerdict()))
	add("Release", released(e))
	add("Fleet", summary(e))
	return out
}

// verdict is "fail: success rate 92.1 % < 99 %"; empty where nothing was judged.
func verdict(v *pluginv1.Verdict) string {
	if v.GetOutcome() == pluginv1.Outcome_OUTCOME_UNSPECIFIED {
		return ""
	}
	s := outcome(v)
	if v.GetReason() != "" {
		s += ": " + v.GetReason()
	}
	return s
}

func outcome(v *pluginv1.Verdict) string {
	return map[pluginv1.Outcome]string{
		pluginv1.Outcome_OUTCOME_PASS: "pass", pluginv1.Outcome_OUTCOME_FAIL: "fail", pluginv1.Outcome_OUTCOME_INCONCLUSIVE: "inconclusive",
	}[v.GetOutcome()]
}

func severity(e *pluginv1.Event) string {
	switch e.GetSeverity() {
	case pluginv1.Severity_SEVERITY_WARNING:
		return "warning"
	case pluginv1.Severity_SEVERITY_ERROR:
		return "error"
	}
	return "info"
}

// released is "tag 1.4.0, commit 0f1e2d3c4b of https://github.com/acme/app".
func released(e *pluginv1.Event) string {
	var parts []string
	if e.GetTag() != "" {
		parts = append(parts, "tag "+e.GetTag())
	}
	if c := e.GetCommit(); c != "" {
		parts = append(parts, "commit "+c[:min(len(c), 10)])
	}
	s := strings.Join(parts, ", ")
	if at := withoutUser(e.GetRepository()); s != "" && at != "" {
		s += " of " + at
	}
	return s
}

// summary is "Progressing 27, RolledBack 1, Succeeded 12".
func summary(e *pluginv1.Event) string {
	var parts []string
	for _, phase := range slices.Sorted(maps.Keys(e.GetSummary())) {
		if n := e.GetSummary()[phase]; n > 0 {
			parts = append(parts, fmt.Sprintf("%s %d", phase, n))
		}
	}
	return strings.Join(parts, ", ")
}

// CommitURL is where a browser shows the event's commit; empty where the repository has no web address.
func CommitURL(e *pluginv1.Event) string {
	u, err := url.Parse(e.GetRepository())
	if err != nil || u.Scheme != "https" || !isCommit(e.GetCommit()) {
		return ""
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	u.Path = strings.TrimSuffix(strings.TrimSuffix(u.Path, "/"), ".git")
	return u.JoinPath("commit", e.GetCommit()).String()
}

// withoutUser takes a name and a password out of a repository's URL.
func withoutUser(repository string) string {
	u, err := url.Parse(repository)
	if err != nil || u.Host == "" {
		if strings.Contains(repository, "://") {
			return "" // not to be read, and it may have a password in it
		}
		return repository // git@host:path
	}
	u.User = nil
	return u.String()
}

func when(e *pluginv1.Event) time.Time {
	if e.GetAt() == nil {
		return time.Time{}
	}
	return e.GetAt().AsTime().UTC()
}

// plain is one line of at most that many characters, without what no reader sees.
func plain(s string, most int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		switch {
		case r < ' ' || r >= 0x7f && r < 0xa0:
			return ' '
		case r >= 0x200b && r <= 0x200f, r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069:
			return -1 // invisible, or turns the direction of what follows
		}
		return r
	}, strings.ToValidUTF8(s, "?"))), " ")
	if runes := []rune(s); len(runes) > most {
		s = string(runes[:most-1]) + "…"
	}
	return s
}

func isCommit(s string) bool {
	return (len(s) == 40 || len(s) == 64) && strings.Trim(s, "0123456789abcdef") == ""
}
