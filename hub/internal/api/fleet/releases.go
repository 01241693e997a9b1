package fleetapi

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// ListReleases lists a distribution's releases, or those of all, ascending by version.
func (s *Service) ListReleases(ctx context.Context, req *fleetv1.ListReleasesRequest) (*fleetv1.ListReleasesResponse, error) {
	all, err := s.cfg.Store.Distributions()
	if err != nil {
		return nil, s.failure("list distributions", err)
	}
	var names []string
	for _, d := range all {
		names = append(names, d.Name)
	}
	known := true
	if name := req.GetDistribution(); name != "" {
		known = slices.Contains(names, name)
		names = []string{name}
	}
	runs, err := s.runningOn()
	if err != nil {
		return nil, s.failure("list what clusters run", err)
	}
	resp := &fleetv1.ListReleasesResponse{}
	for _, name := range names {
		judged, err := s.cfg.Store.Releases(name)
		if err != nil {
			return nil, s.failure("list releases of "+name, err)
		}
		trying, err := s.cfg.Conductor.Preflight(name)
		if err != nil {
			return nil, s.failure("list pre-flights of "+name, err)
		}
		recalled, err := s.cfg.Store.Recalls(name)
		if err != nil {
			return nil, s.failure("list recalls of "+name, err)
		}
		for _, r := range judged {
			resp.Releases = append(resp.Releases, release(r, runs, trying, recalled))
		}
	}
	if !known && len(resp.Releases) == 0 { // one that was removed keeps its releases
		return nil, noDistribution(req.GetDistribution())
	}
	sc := scopeOf(ctx)
	if !sc.all {
		for _, r := range resp.Releases {
			r.RunningOn = slices.DeleteFunc(slices.Clone(r.RunningOn), func(c string) bool { return !sc.sees(c) })
		}
	}
	return resp, s.veil(sc, resp)
}

// GetRelease describes one release, and what each subscribed cluster has to do with it.
func (s *Service) GetRelease(_ context.Context, req *fleetv1.GetReleaseRequest) (*fleetv1.GetReleaseResponse, error) {
	r, err := s.cfg.Store.Release(req.GetDistribution(), req.GetVersion())
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, known, err := s.watched(req.GetDistribution())
		switch {
		case err != nil:
			return nil, s.failure("look for distribution "+req.GetDistribution(), err)
		case !known:
			return nil, noDistribution(req.GetDistribution())
		}
		return nil, noRelease(req.GetDistribution(), req.GetVersion())
	case err != nil:
		return nil, s.failure("read release "+req.GetVersion()+" of "+req.GetDistribution(), err)
	}
	runs, err := s.runningOn()
	if err != nil {
		return nil, s.failure("list what clusters run", err)
	}
	trying, err := s.cfg.Conductor.Preflight(r.Distribution)
	if err != nil {
		return nil, s.failure("list pre-flights of "+r.Distribution, err)
	}
	recalled, err := s.cfg.Store.Recalls(r.Distribution)
	if err != nil {
		return nil, s.failure("list recalls of "+r.Distribution, err)
	}
	now := time.Now()
	clusters, err := s.releaseClusters(now, r.Distribution, r.Version)
	if err != nil {
		return nil, s.failure("list what clusters answered", err)
	}
	return &fleetv1.GetReleaseResponse{Release: release(r, runs, trying, recalled), Clusters: clusters, At: wire.Time(now)}, nil
}

// running is one version of one distribution.
type running struct{ distribution, version string }

// runningOn maps each version that runs somewhere to the clusters, sorted.
func (s *Service) runningOn() (map[running][]string, error) {
	all, err := s.cfg.Store.Installations()
	if err != nil {
		return nil, err
	}
	on := map[running][]string{}
	for cluster, list := range all {
		for _, i := range list {
			if i.Running != "" {
				k := running{i.Distribution, i.Running}
				on[k] = append(on[k], string(cluster))
			}
		}
	}
	for _, names := range on {
		slices.Sort(names)
	}
	return on, nil
}

// phaseRecalled is what a release that was called back shows as its phase; it stays judged as it was.
const phaseRecalled = "Recalled"

func release(r fleet.Release, on map[running][]string, trying map[string]time.Time, recalled map[string]fleet.Recall) *fleetv1.Release {
	m := &fleetv1.Release{Distribution: r.Distribution, Version: r.Version, Phase: string(r.Phase), Digest: string(r.Digest),
		Size: uint64(r.Size), CompressedSize: uint64(r.Compressed), Commit: r.Commit, TagObject: r.TagObject, Reasons: r.Reasons,
		Published: wire.Time(r.Published), RunningOn: on[running{r.Distribution, r.Version}], PreflightUntil: wire.Time(trying[r.Version]), Stops: r.Stops, SignedBy: r.SignedBy}
	for _, v := range r.Variants {
		m.Variants = append(m.Variants, &fleetv1.VariantResult{Name: v.Name, Objects: uint32(v.Objects), Reasons: v.Reasons})
	}
	if c, ok := recalled[r.Version]; ok {
		m.Phase, m.Recalled, m.RecallReason, m.RecalledBy, m.PreflightUntil = phaseRecalled, wire.Time(c.At), c.Reason, c.By, nil
	}
	return m
}
