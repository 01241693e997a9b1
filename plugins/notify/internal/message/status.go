package message

import (
	"fmt"
	"maps"
	"net/url"
	"slices"
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
	Context     string // "wheelwright/app"
	State       State
	Description string // at most 140 characters
}

// detailed is up to how many clusters a description counts them. Beyond, it says percents: GitHub keeps at
// most a thousand statuses of one context and commit.
const detailed = 200

// StatusOf is the status that the event's counts make. ok is false where it has none, as the event of one
// cluster: a commit's status of one cluster would hide the others.
func StatusOf(e *pluginv1.Event) (s Status, ok bool) {
	if len(e.GetSummary()) == 0 {
		return Status{}, false
	}
	var done, failed, underWay uint64
	broken := false
	var failures []string
	for _, phase := range slices.Sorted(maps.Keys(e.GetSummary())) {
		n := uint64(e.GetSummary()[phase])
		switch p := fleet.Phase(phase); {
		case n == 0, phase == string(fleet.MarkUnaffected), phase == string(fleet.MarkLeft):
		case p == fleet.Succeeded, phase == string(fleet.MarkDone):
			done += n
		case p.Failed(), phase == string(fleet.MarkFailed):
			failed += n
			broken = broken || p == fleet.RollbackFailed
			failures = append(failures, fmt.Sprintf("%d %s", n, phase))
		default:
			underWay += n
		}
	}
	s = Status{Commit: e.GetCommit(), Tag: e.GetTag(), Context: "wheelwright/" + e.GetDistribution(), State: Pending}
	all := done + failed + underWay
	switch {
	case broken:
		s.State = Error
	case failed > 0:
		s.State = Failure
	case underWay == 0 && done > 0:
		s.State = Success
	}
	s.Description = fmt.Sprintf("%d of %d clusters", done, all)
	if all > detailed {
		s.Description = fmt.Sprintf("%d %% of %d clusters", 100*done/all, all)
	}
	if all == 0 {
		s.Description = "no cluster takes it yet"
	}
	s.Description = strings.Join(append([]string{s.Description}, failures...), ", ")
	if underWay > 0 && all <= detailed {
		s.Description += fmt.Sprintf(", %d under way", underWay)
	}
	s.Description = plain(s.Description, 140)
	return s, true
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
