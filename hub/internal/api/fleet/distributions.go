package fleetapi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

const (
	defaultPath  = "dist"
	maxInterval  = 24 * time.Hour
	probeTimeout = 60 * time.Second
	maxPreflight = 24 * time.Hour
)

// AddDistribution reads the repository's tags, stores the distribution and starts to watch it.
func (s *Service) AddDistribution(ctx context.Context, req *fleetv1.AddDistributionRequest) (*fleetv1.AddDistributionResponse, error) {
	d, settings, err := s.distribution(req.GetDistribution())
	if err != nil {
		return nil, err
	}
	_, known, err := s.watched(d.Name)
	if err != nil {
		return nil, s.failure("look for distribution "+d.Name, err)
	}
	if known {
		return nil, distributionExists(d.Name)
	}
	probe, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	tags, err := s.cfg.Tags(probe, d)
	if err != nil {
		return nil, unreadable(d, err)
	}
	m := message(d, settings)
	m.Notes = warnings(d, tags)
	before, err := s.cfg.Store.Releases(d.Name)
	if err != nil {
		return nil, s.failure("look for releases of "+d.Name, err)
	}
	if len(before) > 0 {
		m.Notes = append(m.Notes, fmt.Sprintf("a distribution of this name was watched before: what was judged of its %d tags stays, and those in range are offered; choose another name for another application", len(before)))
	}
	if req.GetDryRun() {
		return &fleetv1.AddDistributionResponse{Distribution: m}, nil
	}
	s.watching.Lock()
	defer s.watching.Unlock()
	added := change{action: "distribution add", object: d.Name,
		event: fleet.Event{Distribution: d.Name, Kind: fleet.EventAdded, Message: "began to watch " + d.URL}, reason: "watches " + d.URL}
	switch err := s.commit(ctx, added, func(a store.Audited) error { return a.AddDistributionWith(d, settings) }); {
	case errors.Is(err, store.ErrExists):
		return nil, distributionExists(d.Name)
	case err != nil:
		return nil, s.failure("add distribution "+d.Name, err)
	}
	s.cfg.Watchers.Start(d)
	s.cfg.Spokes.WakeAll() // it may have releases from an earlier time, and spokes that ask for it
	return &fleetv1.AddDistributionResponse{Distribution: m}, nil
}

// distribution checks what an operator wrote.
func (s *Service) distribution(m *fleetv1.Distribution) (d fleet.Distribution, settings store.Settings, err error) {
	settings.Preflight = time.Duration(m.GetPreflightSeconds()) * time.Second
	d = fleet.Distribution{Name: m.GetName(), URL: strings.TrimSpace(m.GetUrl()), Tags: m.GetTags(), Created: time.Now(),
		Path: path.Clean(cmp.Or(m.GetPath(), defaultPath)), Interval: time.Duration(m.GetIntervalSeconds()) * time.Second}
	if err := fleet.CheckDistributionName(d.Name); err != nil {
		return d, settings, invalid("%v", err)
	}
	if err := checkURL(d.URL); err != nil {
		return d, settings, invalid("distribution %s: %v", d.Name, err)
	}
	if path.IsAbs(d.Path) || d.Path == ".." || strings.HasPrefix(d.Path, "../") || strings.ContainsAny(d.Path, "\\\x00") {
		return d, settings, invalid("distribution %s: path %q: want a folder inside the repository, such as dist, or . for its root", d.Name, m.GetPath())
	}
	if _, err := fleet.ParseRange(d.Tags); err != nil {
		return d, settings, invalid("distribution %s: --tags: %v", d.Name, err)
	}
	if d.Signers, err = signersOf(d.Name, m.GetSigners()); err != nil {
		return d, settings, err
	}
	if d.Interval == 0 {
		d.Interval = s.cfg.Interval
	}
	if d.Interval > maxInterval {
		return d, settings, invalid("distribution %s: --interval %v: want at most %v", d.Name, d.Interval, maxInterval)
	}
	if settings.Preflight > maxPreflight {
		return d, settings, invalid("distribution %s: --preflight %v: want at most %v", d.Name, settings.Preflight, maxPreflight)
	}
	return d, settings, nil
}

// checkURL accepts https, http, ssh and file URLs, scp's HOST:PATH, and absolute paths.
func checkURL(s string) error {
	switch {
	case s == "":
		return errors.New("no repository; name it with --git URL")
	case strings.HasPrefix(s, "-") || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return fmt.Errorf("repository %q is not a URL", s)
	case strings.HasPrefix(s, "/"):
		return nil
	}
	if !strings.Contains(s, "://") {
		host, _, scp := strings.Cut(s, ":")
		if scp && host != "" && !strings.Contains(host, "/") && !strings.Contains(s, "::") { // "::" runs a helper
			return nil
		}
		return fmt.Errorf("repository %q is neither a URL nor an absolute path; write https://%s or the whole path", s, strings.TrimPrefix(s, "./"))
	}
	u, err := url.Parse(s)
	if err != nil {
		return fmt.Errorf("repository URL does not parse: %w", errors.Unwrap(err)) // the outer error repeats the URL, secrets and all
	}
	if !slices.Contains([]string{"https", "http", "ssh", "file"}, u.Scheme) {
		return fmt.Errorf("repository URL of scheme %q: want https, ssh, http or file", u.Scheme)
	}
	if _, secret := u.User.Password(); secret {
		return fmt.Errorf("the URL holds a password, which every operator and spoke would see; leave it out: %s", u.Redacted())
	}
	return nil
}

// warnings are for a repository that can be read and yet gives no release.
func warnings(d fleet.Distribution, tags []string) []string {
	r, err := fleet.ParseRange(d.Tags)
	if err != nil {
		return []string{err.Error()}
	}
	versions, inRange := 0, 0
	for _, t := range tags {
		v, err := fleet.ParseVersion(t)
		if err != nil {
			continue
		}
		versions++
		if r.Contains(v) {
			inRange++
		}
	}
	switch {
	case len(tags) == 0:
		return []string{"the repository has no tags yet; the first release comes with `git tag 1.0.0 && git push --tags`"}
	case versions == 0:
		return []string{fmt.Sprintf("none of %d tags is a semantic version (MAJOR.MINOR.PATCH), so there is no release yet", len(tags))}
	case inRange == 0:
		return []string{fmt.Sprintf("none of %d version tags is in range %q, so there is no release yet", versions, d.Tags)}
	}
	return nil
}

// watched finds the distribution that is watched under a name.
func (s *Service) watched(name string) (d fleet.Distribution, found bool, err error) {
	all, err := s.cfg.Store.Distributions()
	if i := slices.IndexFunc(all, func(d fleet.Distribution) bool { return d.Name == name }); i >= 0 {
		d, found = all[i], true
	}
	return d, found, err
}

// mustWatch is watched where it has to be; its errors are the call's.
func (s *Service) mustWatch(name string) (fleet.Distribution, error) {
	d, found, err := s.watched(name)
	switch {
	case err != nil:
		return d, s.failure("look for distribution "+name, err)
	case !found:
		return d, noDistribution(name)
	}
	return d, nil
}

// RemoveDistribution stops watching, and aborts what is under way.
func (s *Service) RemoveDistribution(ctx context.Context, req *fleetv1.RemoveDistributionRequest) (*fleetv1.RemoveDistributionResponse, error) {
	name := req.GetName()
	s.watching.Lock()
	defer s.watching.Unlock()
	if _, err := s.mustWatch(name); err != nil {
		return nil, err
	}
	removed := change{action: "distribution remove", object: name,
		event: fleet.Event{Distribution: name, Kind: fleet.EventRemoved, Message: "stopped watching the distribution; its releases stay"}}
	aborted, err := s.cfg.Conductor.RemoveDistribution(time.Now(), who(ctx), name, req.GetDryRun(), func() error {
		return s.commit(ctx, removed, func(a store.Audited) error { return a.RemoveDistribution(name) })
	})
	if err != nil {
		return nil, s.refused("remove distribution "+name, err)
	}
	if !req.GetDryRun() {
		s.cfg.Watchers.Stop(name)
		s.cfg.Spokes.WakeAll() // they are offered nothing of it from here on
	}
	return &fleetv1.RemoveDistributionResponse{Rollouts: aborted}, nil
}

// ListDistributions lists all, by name.
func (s *Service) ListDistributions(context.Context, *fleetv1.ListDistributionsRequest) (*fleetv1.ListDistributionsResponse, error) {
	all, err := s.cfg.Store.Distributions()
	if err != nil {
		return nil, s.failure("list distributions", err)
	}
	settings, err := s.cfg.Store.Settings()
	if err != nil {
		return nil, s.failure("list distributions", err)
	}
	resp := &fleetv1.ListDistributionsResponse{}
	for _, d := range all {
		m := message(d, settings[d.Name])
		judged, err := s.cfg.Store.Releases(d.Name)
		if err != nil {
			return nil, s.failure("list releases of "+d.Name, err)
		}
		offered, err := fleet.ParseRange(d.Tags)
		if err != nil {
			return nil, s.failure("list releases of "+d.Name, err)
		}
		for _, r := range judged { // ascending
			if r.Phase == fleet.Available {
				m.ReleasesAvailable++
				if v, err := fleet.ParseVersion(r.Version); err == nil && offered.Contains(v) {
					m.Latest = r.Version
				}
			} else {
				m.ReleasesRejected++
			}
		}
		last, failure, notes := s.cfg.Conductor.Poll(d.Name)
		m.LastPolled, m.LastError, m.Notes = wire.Time(last), failure, notes
		resp.Distributions = append(resp.Distributions, m)
	}
	return resp, nil
}

func message(d fleet.Distribution, settings store.Settings) *fleetv1.Distribution {
	return &fleetv1.Distribution{Name: d.Name, Url: d.URL, Path: d.Path, Tags: d.Tags,
		IntervalSeconds: uint32(d.Interval / time.Second), Created: wire.Time(d.Created),
		PreflightSeconds: uint32(settings.Preflight / time.Second), Signers: signersMessage(d.Signers)}
}
