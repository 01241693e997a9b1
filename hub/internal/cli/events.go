package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func listEvents(ctx context.Context, hub fleetv1.FleetServiceClient, a *app, names []string, issues bool) (printer.Answer, error) {
	req := &fleetv1.ListEventsRequest{}
	if len(names) > 0 {
		req.Cluster = names[0]
	}
	if issues {
		req.Limit = allEvents // the newest few may hold none
	}
	r, err := hub.ListEvents(ctx, req)
	if err != nil {
		return printer.Answer{}, err
	}
	items := r.GetEvents()
	if issues {
		items = slices.DeleteFunc(items, func(e *fleetv1.FleetEvent) bool { return !issue(e) })
		items = items[max(0, len(items)-shownEvents):]
	}
	answer := printer.Answer{
		Message: &fleetv1.ListEventsResponse{Events: items},
		Headers: eventHeaders(), WideHeaders: []string{"ID"}, Empty: "No events",
	}
	for _, e := range items {
		answer.Rows = append(answer.Rows, eventRow(e))
		answer.WideRows = append(answer.WideRows, []string{fmt.Sprint(e.GetId())})
		answer.Names = append(answer.Names, fmt.Sprint(e.GetId()))
	}
	return answer, nil
}

const (
	shownEvents = 200    // as many as the hub sends unasked
	allEvents   = 10_000 // as many as it keeps
)

var issueKinds = map[string]bool{"Rejected": true, "Recalled": true, "TagMoved": true, "TagDeleted": true, "Declined": true, "Drift": true, "Removed": true}

// issue: the event wants a person's look. A pre-flight does where it breaks; that a cluster which has just
// joined is offered nothing yet does not.
func issue(e *fleetv1.FleetEvent) bool {
	if e.GetKind() == string(fleet.EventDeclined) && strings.HasPrefix(e.GetMessage(), "nothing runs: nothing is on offer") {
		return false
	}
	return issueKinds[e.GetKind()] || e.GetKind() == string(fleet.EventPreflight) && strings.HasPrefix(e.GetMessage(), e.GetVersion()+": breaks")
}

func eventHeaders() []string {
	return []string{"TIME", "CLUSTER", "DISTRIBUTION", "VERSION", "KIND", "MESSAGE"}
}

func eventRow(e *fleetv1.FleetEvent) []string {
	return []string{stamp(e.GetAt()), e.GetCluster(), e.GetDistribution(), e.GetVersion(), e.GetKind(), shorten(e.GetMessage(), 160)}
}

// followEvents is `hub get events -w`: the newest that there are, and then each new one, as a line. The
// hub numbers events for good, so none is told twice or left out when it is restarted meanwhile.
func followEvents(ctx context.Context, a *app, p *printer.Printer, names []string, issues bool) error {
	table := &columns{out: a.out}
	req := &fleetv1.ListEventsRequest{}
	if len(names) > 0 {
		req.Cluster = names[0]
	}
	first := true
	return a.follow(ctx, false, func(ctx context.Context, hub fleetv1.FleetServiceClient) error {
		r, err := hub.ListEvents(ctx, req)
		if err != nil {
			return err
		}
		items := r.GetEvents()
		if len(items) > 0 {
			req.AfterId = items[len(items)-1].GetId()
		}
		req.Limit = allEvents // whatever came since
		if issues {
			items = slices.DeleteFunc(items, func(e *fleetv1.FleetEvent) bool { return !issue(e) })
		}
		if first && p.Human() && !p.NoHeaders {
			if err := writeHead(p, table, items); err != nil {
				return err
			}
		}
		first = false
		for _, e := range items {
			if err := writeEvent(p, table, e); err != nil {
				return err
			}
		}
		return nil
	})
}

// writeHead makes the columns as wide as what there is already.
func writeHead(p *printer.Printer, table *columns, items []*fleetv1.FleetEvent) error {
	for _, e := range items {
		table.fit(followedRow(p, e))
	}
	headers := eventHeaders()
	if p.Format == "wide" {
		headers = append([]string{"ID"}, headers...)
	}
	return table.write(headers)
}

// followedRow has its number in front, since the message has no end to put it behind.
func followedRow(p *printer.Printer, e *fleetv1.FleetEvent) []string {
	if p.Format == "wide" {
		return append([]string{fmt.Sprint(e.GetId())}, eventRow(e)...)
	}
	return eventRow(e)
}

func writeEvent(p *printer.Printer, table *columns, e *fleetv1.FleetEvent) error {
	var b []byte
	var err error
	switch p.Format {
	case "json":
		b, err = jsonLine(e)
	case "yaml":
		if b, err = jsonLine(e); err == nil {
			b, err = yaml.JSONToYAML(b)
			b = append([]byte("---\n"), b...)
		}
	case "name":
		b = fmt.Appendln(nil, e.GetId())
	default:
		return table.write(followedRow(p, e))
	}
	if err != nil {
		return fmt.Errorf("writing event %d: %w", e.GetId(), err)
	}
	_, err = table.out.Write(b)
	return err
}

// jsonLine is a message as JSON on one line; the same bytes for the same message.
func jsonLine(m proto.Message) ([]byte, error) {
	raw, err := protojson.MarshalOptions{EmitDefaultValues: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer // protojson varies its blanks on purpose
	if err := json.Compact(&b, raw); err != nil {
		return nil, err
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}
