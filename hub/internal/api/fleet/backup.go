package fleetapi

import (
	"bufio"
	"log/slog"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// Backup streams one. It is in the audit before its first byte is sent: who has it can read all that the hub keeps.
func (s *Service) Backup(_ *fleetv1.BackupRequest, stream fleetv1.FleetService_BackupServer) error {
	by := who(stream.Context())
	if err := s.cfg.Store.Record(fleet.Entry{At: time.Now(), Actor: by.Actor, Credential: by.Credential, Action: "backup", Object: "hub"}); err != nil {
		return s.failure("record who makes a backup", err)
	}
	w := bufio.NewWriterSize(pieces{stream}, transport.ChunkSize)
	err := s.cfg.Backup(w)
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		s.cfg.Log.Error("backup not made", slog.Any(logging.Error, err))
		if _, coded := status.FromError(err); coded {
			return err // the caller went away
		}
		return status.Errorf(codes.Internal, "make a backup: %v", err)
	}
	return nil
}

// pieces sends what is written.
type pieces struct {
	stream fleetv1.FleetService_BackupServer
}

func (p pieces) Write(data []byte) (int, error) {
	for rest := data; len(rest) > 0; {
		n := min(len(rest), transport.ChunkSize)
		if err := p.stream.Send(&fleetv1.BackupResponse{Data: rest[:n]}); err != nil {
			return len(data) - len(rest), err
		}
		rest = rest[n:]
	}
	return len(data), nil
}
