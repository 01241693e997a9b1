package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/courier"
	"github.com/wheelwright-dev/wheelwright/plugins/notify/internal/message"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// notifier tells one place.
type notifier struct {
	settings
	log *slog.Logger
}

// Notify leaves out what the settings do not ask for, which is no error.
func (n *notifier) Notify(ctx context.Context, r *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error) {
	e := r.GetEvent()
	if e == nil {
		return nil, errors.New("notify: the call has no event")
	}
	if d := r.GetCall().GetDeadline(); d != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, d.AsTime())
		defer cancel()
	}
	if !n.wants(e) {
		return &pluginv1.NotifyResponse{}, nil
	}
	reference, err := n.send(ctx, e)
	if err != nil {
		return nil, fmt.Errorf("tell %s of %s %s: %w", n.kind, e.GetDistribution(), e.GetVersionTo(), err)
	}
	n.log.Debug("told", slog.String("kind", n.kind), slog.String("event", e.GetId()), slog.String("phase", e.GetPhase()))
	return &pluginv1.NotifyResponse{Reference: reference}, nil
}

// wants: a commit's status is a picture of the fleet, to which every event adds.
func (n *notifier) wants(e *pluginv1.Event) bool {
	switch {
	case n.kind == "github" || n.kind == "gitlab", n.tell == "all", e.GetTerminal():
		return true
	case n.tell == "attention":
		return e.GetSeverity() == pluginv1.Severity_SEVERITY_WARNING || e.GetSeverity() == pluginv1.Severity_SEVERITY_ERROR
	}
	return false
}

// send returns where it can be seen; empty where nobody says.
func (n *notifier) send(ctx context.Context, e *pluginv1.Event) (string, error) {
	switch n.kind {
	case "slack":
		return "", n.post(ctx, e, message.Slack)
	case "teams":
		return "", n.post(ctx, e, message.Teams)
	case "webhook":
		return "", n.post(ctx, e, message.Webhook)
	}
	return n.setStatus(ctx, e)
}

func (n *notifier) post(ctx context.Context, e *pluginv1.Event, make func(*pluginv1.Event) ([]byte, error)) error {
	body, err := make(e)
	if err != nil {
		return err
	}
	p := courier.Parcel{URL: n.url, Body: body, Header: http.Header{"Content-Type": {"application/json"}}}
	if n.kind == "webhook" {
		for name, values := range n.header {
			p.Header[name] = values
		}
		p.Header.Set("Idempotency-Key", e.GetId())
		p.Header.Set("Webhook-Id", e.GetId())
		p.Stamp = func(at time.Time, h http.Header) {
			h.Set("Webhook-Timestamp", strconv.FormatInt(at.Unix(), 10))
			if signature, err := message.Sign(n.secret, e.GetId(), at, body); err == nil && n.secret != "" {
				h.Set("Webhook-Signature", signature)
			}
		}
	}
	_, err = n.courier.Carry(ctx, p)
	return err
}

// sendSample tells a made-up event, so that an operator sees what comes.
func (n *notifier) sendSample(ctx context.Context) error {
	_, err := n.send(ctx, &pluginv1.Event{
		Id: "sample-" + strconv.FormatInt(time.Now().Unix(), 10), At: timestamppb.Now(), Distribution: "sample", VersionFrom: "1.2.0", VersionTo: "1.4.0",
		Cluster: "acme/eu-1", Phase: "RolledBack", Severity: pluginv1.Severity_SEVERITY_ERROR, Terminal: true,
		Message: "This is a sample: no delivery has failed.",
		Verdict: &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Reason: "success rate 92.1 % < 99 % over 1m, 4,120 requests", Sample: 4120, MinimumSample: 50},
	})
	return err
}

func epoch() time.Time { return time.Unix(0, 0) }
