package message

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// State of a commit, in GitHub's words; GitLab's name for Pending is running, for Failure and Error failed.
type State string

const (
	Pending State = "pending"
	Success State = "success"
	Failure State = "failure" // somewhere the release was not taken or went back
	Error   State = "error"   // somewhere neither the old release nor the new one runs whole
)

// Status is what one commit is told about the fleet: one for all clusters.
type Status struct {
	Commit      string
	Tag         string
	Context     string // "wheelwright/app/1.2.0"
	State       State
	Description string // at most 140 characters
}

// detailed is up to how many clusters a description counts them. Beyond, it says percents: GitHub keeps at
// most a thousand statuses of one context and commit.
const detailed = 200

// StatusOf is the status that an event about the whole fleet makes. ok is false for any other: a commit's
// status of one cluster would hide the others.
func StatusOf(e *pluginv1.Event) (s Status, ok bool) {
	if !ofFleet(e) {
		return Status{}, false
	}
	t := fleet.Tally(e.GetSummary())
	s = Status{Commit: e.GetCommit(), Tag: e.GetTag(), Context: contextOf(e), State: Pending, Description: t.Brief(e.GetVersionTo(), detailed)}
	switch {
	case fleet.Mark(e.GetPhase()) == fleet.MarkDone:
		s.State = Success
	case fleet.Mark(e.GetPhase()) == fleet.MarkFailed && t[string(fleet.RollbackFailed)] > 0:
		s.State = Error
	case fleet.Mark(e.GetPhase()) == fleet.MarkFailed:
		s.State = Failure
	}
	if e.GetMessage() != "" {
		s.Description += "; " + e.GetMessage()
	}
	s.Description = plain(s.Description, 140)
	return s, true
}

// ofFleet: the event says where all clusters stand with a release.
func ofFleet(e *pluginv1.Event) bool {
	switch fleet.Mark(e.GetPhase()) {
	case fleet.MarkUnderway, fleet.MarkDone, fleet.MarkFailed:
		return e.GetCluster() == ""
	}
	return false
}

// contextOf is the status's name: of the tag, for two tags may be on one commit.
func contextOf(e *pluginv1.Event) string {
	return "wheelwright/" + e.GetDistribution() + "/" + e.GetTag()
}

// Repository is where a distribution lives, out of https://host/path.git, ssh://git@host/path or
// git@host:path.
func Repository(address string) (host, path string, err error) {
	u, parseErr := url.Parse(address)
	if parseErr == nil && u.Host != "" {
		host, path = u.Hostname(), u.Path
		if port := u.Port(); port != "" && u.Scheme == "https" {
			host = u.Host
		}
	} else if before, after, found := strings.Cut(address, ":"); found && !strings.Contains(before, "/") && !strings.HasPrefix(after, "//") {
		_, host, _ = strings.Cut("@"+before, "@")
		host, path = host[strings.LastIndex(host, "@")+1:], after
	}
	path = strings.TrimSuffix(strings.Trim(path, "/"), ".git")
	if host == "" || !strings.Contains(path, "/") || strings.Contains(path, "..") {
		return "", "", fmt.Errorf("the event's repository is not to be read as https://HOST/OWNER/NAME")
	}
	return host, path, nil
}

// CheckCommit says why a status cannot be set on it.
func CheckCommit(commit string) error {
	if !isCommit(commit) {
		return fmt.Errorf("the event names no commit to set a status on: %q", plain(commit, 80))
	}
	return nil
}
