package fleetapi

import (
	"context"
	"log/slog"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// who the caller is, for the record.
func who(ctx context.Context) caller.Who {
	c, _ := caller.From(ctx)
	return c.Who()
}

// change is one that an operator makes: what is told about it, and what is accounted for.
type change struct {
	event  fleet.Event // its message is what was done, in the past; who did it is put before it
	action string
	object string
	reason string // empty: the event's message
}

// commit has do carry a change out together with its event and its entry, all on disk or nothing, and tells
// everybody who looks.
func (s *Service) commit(ctx context.Context, c change, do func(store.Audited) error) error {
	w, e := who(ctx), c.event
	entry := fleet.Entry{At: time.Now(), Actor: w.Actor, Credential: w.Credential, Action: c.action, Object: c.object, Reason: c.reason}
	if entry.Reason == "" {
		entry.Reason = e.Message
	}
	e.At, e.Message = entry.At, w.Actor+" "+e.Message
	if err := do(s.cfg.Store.Audited(e, entry)); err != nil {
		return err
	}
	s.cfg.Log.Info("fleet changed", slog.String("event", string(e.Kind)), slog.String(logging.Cluster, string(e.Cluster)),
		slog.String(logging.Distribution, e.Distribution), slog.String(logging.Reason, e.Message))
	s.cfg.Spokes.Changed()
	return nil
}

// auditPage is how many entries are read at once.
const auditPage = 500

// ExportAudit streams what there is when it is read, and ends.
func (s *Service) ExportAudit(req *fleetv1.ExportAuditRequest, stream fleetv1.FleetService_ExportAuditServer) error {
	for after := req.GetAfter(); ; {
		page, err := s.cfg.Store.Audit(after, auditPage)
		if err != nil {
			return s.failure("read the audit", err)
		}
		for _, e := range page {
			m := &fleetv1.AuditEntry{Number: e.Number, At: wire.Time(e.At), Actor: e.Actor, Credential: e.Credential, Action: e.Action,
				Object: e.Object, Reason: e.Reason, Previous: e.Previous, Hash: e.Hash, Record: e.Record}
			if err := stream.Send(&fleetv1.ExportAuditResponse{Entry: m}); err != nil {
				return err
			}
			after = e.Number
		}
		if len(page) < auditPage {
			return nil
		}
	}
}
