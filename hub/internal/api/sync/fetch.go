package syncapi

import (
	"errors"
	"io"
	"log/slog"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// maxHave bounds the bundles that a spoke offers to patch.
const maxHave = 4

// FetchBundle streams one bundle: a delta on one that the spoke has, or the whole.
func (s *Service) FetchBundle(req *syncv1.FetchBundleRequest, stream syncv1.SyncService_FetchBundleServer) error {
	ctx := stream.Context()
	who, err := spoke(ctx)
	if err != nil {
		return err
	}
	digest, bases, err := s.asked(req)
	if err != nil {
		return err
	}
	e, err := s.cfg.Bundles.Get(ctx, digest, bases, req.GetEncoding())
	if err != nil {
		return s.failure("read the bundle "+string(digest), err)
	}
	defer e.Close()
	// So that the spoke does not take a hub that lets it wait for one that is gone.
	alive := func() error { return stream.Send(&syncv1.FetchBundleResponse{}) }
	if err := s.gate.enter(ctx, alive); err != nil {
		return err
	}
	defer s.gate.leave()
	at := int64(0)
	if o := req.GetOffset(); e.ID == req.GetEncoding() && o <= uint64(e.Size) {
		at = int64(o)
	}
	s.cfg.Log.Debug("sending bundle", slog.String(logging.Cluster, string(who.Cluster)), slog.String(logging.Digest, string(digest)),
		slog.String("base", string(e.Base)), slog.Int64("bytes", e.Size-at))
	sent := &s.whole
	if e.Base != "" {
		sent = &s.deltas
	}
	m := &syncv1.FetchBundleResponse{Encoding: e.ID, Base: string(e.Base), Size: uint64(e.Size), Offset: uint64(at)}
	for first := true; ; first = false {
		var data []byte
		data, err = e.Chunk(at, transport.ChunkSize)
		if err != nil && !(errors.Is(err, io.EOF) && first) {
			break
		}
		if err := s.gate.pay(ctx, len(data), alive); err != nil {
			return err
		}
		encoded, err := wire.Chunk(m, data)
		if err == nil {
			err = stream.SendMsg(encoded)
		}
		if err != nil {
			return err
		}
		sent.Add(uint64(len(data)))
		at += int64(len(data))
		m = &syncv1.FetchBundleResponse{}
	}
	if errors.Is(err, io.EOF) {
		return nil
	}
	return s.failure("read the bundle "+string(digest), err)
}

// asked is what a request is for, with those bases that are releases of this hub.
func (s *Service) asked(req *syncv1.FetchBundleRequest) (digest fleet.Digest, bases []fleet.Digest, err error) {
	if n := len(req.GetHave()); n > maxHave {
		return "", nil, status.Errorf(codes.InvalidArgument, "%d bundles to patch, at most %d are taken", n, maxHave)
	}
	for i, text := range append([]string{req.GetDigest()}, req.GetHave()...) {
		d, err := fleet.ParseDigest(text)
		if err != nil {
			return "", nil, status.Error(codes.InvalidArgument, err.Error())
		}
		known, err := s.cfg.Reports.ReleaseByDigest(d)
		switch {
		case err != nil:
			return "", nil, s.failure("look for the release with digest "+string(d), err)
		case i == 0 && !known:
			return "", nil, status.Errorf(codes.NotFound, "no release of this hub has the digest %s; the spoke takes the next offer instead", d)
		case i == 0:
			digest = d
		case known:
			bases = append(bases, d)
		}
	}
	return digest, bases, nil
}
