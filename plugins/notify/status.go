package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"strings"

	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/courier"
	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/message"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// shown is what a git host shows now of our context.
type shown struct {
	state       string
	description string
}

// setStatus makes the commit show what the fleet does: one status of one name, replaced in place. What it
// shows already is not written again.
func (n *notifier) setStatus(ctx context.Context, e *pluginv1.Event) (string, error) {
	s, ok := message.StatusOf(e)
	if !ok {
		n.log.Debug("no commit status: the event is not about the whole fleet", slog.String("event", e.GetId()))
		return "", nil
	}
	if err := message.CheckCommit(s.Commit); err != nil {
		return "", err
	}
	repository, err := n.repositoryOf(e)
	if err != nil {
		return "", err
	}
	if n.kind == "gitlab" {
		err = n.gitlab(ctx, repository, s)
	} else {
		err = n.github(ctx, repository, s)
	}
	return message.CommitURL(e), err
}

// repositoryOf is the one of the settings, or the event's where that lives where the token belongs: a
// token is never shown to a host that an event names.
func (n *notifier) repositoryOf(e *pluginv1.Event) (string, error) {
	if n.repository != "" {
		return n.repository, nil
	}
	host, path, err := message.Repository(e.GetRepository())
	if err != nil {
		return "", err
	}
	api, err := url.Parse(n.api)
	if err != nil {
		return "", errors.New("--api is not a URL")
	}
	own := strings.TrimPrefix(api.Host, "api.")
	if !strings.EqualFold(host, own) && !strings.EqualFold(host, api.Host) {
		return "", fmt.Errorf("the release comes from %s and the token is for %s: give --api, or --repository", host, own)
	}
	return path, nil
}

// github: POST adds a status, and the newest of a context is the one that counts.
func (n *notifier) github(ctx context.Context, repository string, s message.Status) error {
	owner, name, _ := strings.Cut(repository, "/")
	base := n.api + "/repos/" + url.PathEscape(owner) + "/" + url.PathEscape(name)
	header := http.Header{"Accept": {"application/vnd.github+json"}, "X-GitHub-Api-Version": {"2022-11-28"}, "Authorization": {"Bearer " + n.token}}
	var combined struct {
		Statuses []struct {
			Context     string `json:"context"`
			State       string `json:"state"`
			Description string `json:"description"`
		} `json:"statuses"`
	}
	if err := n.get(ctx, base+"/commits/"+s.Commit+"/status?per_page=100", header, &combined); err != nil {
		return err
	}
	for _, c := range combined.Statuses {
		if c.Context == s.Context && c.State == string(s.State) && c.Description == s.Description {
			return nil
		}
	}
	return n.put(ctx, base+"/statuses/"+s.Commit, header, map[string]string{"state": string(s.State), "context": s.Context, "description": s.Description})
}

// gitlab: POST replaces the status of the same name. It refuses to go from a state to the same one, so
// that a new description of the same state has to wait for the next.
func (n *notifier) gitlab(ctx context.Context, project string, s message.Status) error {
	base := n.api + "/projects/" + url.PathEscape(project)
	header := http.Header{"Private-Token": {n.token}}
	state := map[message.State]string{message.Pending: "running", message.Success: "success", message.Failure: "failed", message.Error: "failed"}[s.State]
	var statuses []struct {
		Name        string `json:"name"`
		Status      string `json:"status"`
		Description string `json:"description"`
	}
	if err := n.get(ctx, base+"/repository/commits/"+s.Commit+"/statuses?name="+url.QueryEscape(s.Context), header, &statuses); err != nil {
		return err
	}
	var now shown
	for _, c := range statuses {
		if c.Name == s.Context {
			now = shown{c.Status, c.Description}
		}
	}
	if now == (shown{state, s.Description}) {
		return nil
	}
	body := map[string]string{"state": state, "name": s.Context, "description": s.Description}
	if s.Tag != "" {
		body["ref"] = s.Tag
	}
	err := n.put(ctx, base+"/statuses/"+s.Commit, header, body)
	if refused, ok := errors.AsType[*courier.Refusal](err); ok && refused.Status == http.StatusBadRequest && now.state == state &&
		strings.Contains(string(refused.Body), "Cannot transition status") {
		n.log.Debug("the commit shows this state already", slog.String("state", state))
		return nil
	}
	return err
}

func (n *notifier) get(ctx context.Context, address string, header http.Header, into any) error {
	answer, err := n.courier.Carry(ctx, courier.Parcel{Method: http.MethodGet, URL: address, Header: header})
	if err != nil {
		return hint(err)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("read the commit's statuses: %s does not answer as the API does: look at --api", n.kind)
	}
	return nil
}

func (n *notifier) put(ctx context.Context, address string, header http.Header, body map[string]string) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode a status: %w", err)
	}
	header = header.Clone()
	header.Set("Content-Type", "application/json")
	_, err = n.courier.Carry(ctx, courier.Parcel{URL: address, Header: header, Body: encoded})
	return hint(err)
}

// hint says where to look.
func hint(err error) error {
	refused, ok := errors.AsType[*courier.Refusal](err)
	if !ok {
		return err
	}
	switch refused.Status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound:
		return fmt.Errorf("%w: is the token valid, and may it set commit statuses of this repository?", err)
	}
	return err
}
