package fleetapi

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
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

// audit logs and records what an operator did, in the fleet's history and in the audit.
func (s *Service) audit(ctx context.Context, action, object string, e fleet.Event) error {
	e.At = time.Now()
	done := e.Message
	e.Message = who(ctx).Actor + " " + done
	s.cfg.Log.Info("fleet changed", slog.String("event", string(e.Kind)), slog.String(logging.Cluster, string(e.Cluster)),
		slog.String(logging.Distribution, e.Distribution), slog.String(logging.Reason, e.Message))
	s.cfg.Spokes.Changed()
	return errors.Join(s.cfg.Store.AppendEvent(e), s.record(ctx, action, object, done))
}

// record adds to the audit.
func (s *Service) record(ctx context.Context, action, object, reason string) error {
	w := who(ctx)
	return s.cfg.Store.Record(fleet.Entry{At: time.Now(), Actor: w.Actor, Credential: w.Credential, Action: action, Object: object, Reason: reason})
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
