// Package fleetapi answers operators: it implements FleetService. It checks what is asked, reads and
// writes the store, and translates to messages; what is offered to whom, and what comes of a person's
// word about that, is the conductor's to decide. Every change is recorded with who made it.
package fleetapi

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// distributions are by name.
type distributions interface {
	Distributions() ([]fleet.Distribution, error)
	Settings() (map[string]store.Settings, error)
	Channel(distribution string) (channel.Log, error)
}

type releases interface {
	Release(distribution, version string) (fleet.Release, error)
	Releases(distribution string) ([]fleet.Release, error)
	Preflights(distribution, version string) (map[fleet.Cluster]fleet.Preflight, error)
}

// recalls are by version.
type recalls interface {
	Recalls(distribution string) (map[string]fleet.Recall, error)
}

type clusters interface {
	Clusters() ([]store.Cluster, error)
	Installations() (map[fleet.Cluster][]fleet.Installation, error)
}

type events interface {
	// EventPage also says where the page of older ones begins; 0: nowhere.
	EventPage(store.EventFilter) (page []fleet.Event, next uint64, err error)
	// Audited makes a change with its event and its entry, and Audit lists at most limit entries after one, ascending.
	Audited(fleet.Event, fleet.Entry) store.Audited
	Audit(after uint64, limit int) ([]fleet.Entry, error)
	// Record is an entry about what changes nothing.
	Record(fleet.Entry) error
	// Orders lists operators' signed orders, by cluster, distribution and nonce.
	Orders() []fleet.SignedOrder
}

// reHomes are the last of each cluster.
type reHomes interface {
	ReHome(fleet.Cluster) (r fleet.SignedReHome, found bool, err error)
	ReHomes() ([]fleet.SignedReHome, error)
}

// disk is where everything is kept.
type disk interface {
	Trouble() string // why nothing can be written; empty: it can
}

// Store is what the service reads and writes.
type Store interface {
	disk
	distributions
	releases
	recalls
	clusters
	operators
	holders
	events
	reHomes
}

// conductor computes what is more than a record, and decides. Its errors wrap those of package caller.
type conductor interface {
	views
	narrowed
	rollouts
	decisions
	pins
	orderly
}

type views interface {
	Status(now time.Time, distribution string, limit int) (*fleetv1.GetStatusResponse, error)
	Explain(now time.Time, cluster fleet.Cluster, distribution string) (*fleetv1.ExplainResponse, error)
	Poll(distribution string) (last time.Time, failure string, notes []string)
	// Preflight lists the releases that are offered to be tried out only, each with the latest end.
	Preflight(distribution string) (map[string]time.Time, error)
}

// narrowed is what a provider may know of a fleet, and which clusters a text may name.
type narrowed interface {
	ProviderStatus(now time.Time, provider, distribution string, limit int) (*fleetv1.GetStatusResponse, error)
	Named() (map[fleet.Cluster]bool, error)
}

// spokes knows who is connected, and of every change.
type spokes interface {
	Connected(fleet.Cluster) bool
	LastSeen(fleet.Cluster) time.Time
	End(fleet.Cluster)
	feed
}

// feed is how changes get around.
type feed interface {
	WakeAll() // what is offered changed
	Wake(...fleet.Cluster)
	Changed()
	Subscribe() (changes <-chan struct{}, cancel func())
}

// watchers watch repositories. Neither call waits for the repository.
type watchers interface {
	Start(fleet.Distribution)
	Stop(distribution string)
}

// Config is what a Service works with.
type Config struct {
	Store     Store
	Conductor conductor
	Spokes    spokes
	Watchers  watchers
	Authority authority
	// Tags lists the tags of a distribution's repository; its errors are those of pkg/gitrepo.
	Tags func(context.Context, fleet.Distribution) ([]string, error)
	// Backup writes one, of package backup.
	Backup func(io.Writer) error

	ComeBack  time.Duration // after its certificate's end within which a spoke may renew it
	Address   string        // HOST:PORT that spokes should dial
	Interval  time.Duration // of a distribution that names none
	Heartbeat time.Duration // of the spokes
	Log       *slog.Logger
}

// Service implements FleetService.
type Service struct {
	fleetv1.UnimplementedFleetServiceServer
	cfg Config

	watching sync.Mutex // a distribution's record and its watcher come and go together
}

// New makes the service.
func New(cfg Config) *Service { return &Service{cfg: cfg} }

// GetVersion says which build this hub is.
func (s *Service) GetVersion(context.Context, *fleetv1.GetVersionRequest) (*fleetv1.GetVersionResponse, error) {
	return &fleetv1.GetVersionResponse{Version: buildinfo.Version(), Commit: buildinfo.Commit(), GoVersion: buildinfo.Go(), AuthorityPin: s.cfg.Authority.Pin()}, nil
}

const (
	defaultEvents = 200
	maxEvents     = 10_000
)

// ListEvents lists the newest events that match and that the caller sees: of its clusters, and of
// distributions. A provider is not told of operators.
func (s *Service) ListEvents(ctx context.Context, req *fleetv1.ListEventsRequest) (*fleetv1.ListEventsResponse, error) {
	f := store.EventFilter{Cluster: req.GetCluster(), Distribution: req.GetDistribution(), AfterID: req.GetAfterId(), Limit: int(min(req.GetLimit(), maxEvents))}
	if f.Limit == 0 {
		f.Limit = defaultEvents
	}
	if t := req.GetPageToken(); t != "" {
		var err error
		if f.From, err = strconv.ParseUint(t, 10, 64); err != nil || f.From == 0 {
			return nil, status.Errorf(codes.InvalidArgument, "page token %q is none of this hub's; leave it out to begin with the newest events", t)
		}
	}
	sc := scopeOf(ctx)
	if f.Cluster != "" {
		if err := sc.must(fleet.Cluster(f.Cluster)); err != nil {
			return nil, err
		}
	}
	if !sc.all {
		if f.Provider = sc.provider; f.Provider == "" {
			return &fleetv1.ListEventsResponse{}, nil
		}
	}
	found, next, err := s.cfg.Store.EventPage(f)
	if err != nil {
		return nil, s.failure("list events", err)
	}
	resp := &fleetv1.ListEventsResponse{}
	if next > 0 {
		resp.NextPageToken = strconv.FormatUint(next, 10)
	}
	for _, e := range found {
		resp.Events = append(resp.Events, &fleetv1.FleetEvent{Id: e.ID, At: wire.Time(e.At), Cluster: string(e.Cluster),
			Distribution: e.Distribution, Version: e.Version, Kind: string(e.Kind), Message: e.Message})
	}
	return resp, s.veil(sc, resp)
}

// GetStatus is the fleet on one screen.
func (s *Service) GetStatus(ctx context.Context, req *fleetv1.GetStatusRequest) (r *fleetv1.GetStatusResponse, err error) {
	sc := scopeOf(ctx)
	if sc.all {
		r, err = s.cfg.Conductor.Status(time.Now(), req.GetDistribution(), int(req.GetLimit()))
	} else {
		r, err = s.cfg.Conductor.ProviderStatus(time.Now(), sc.provider, req.GetDistribution(), int(req.GetLimit()))
	}
	if err != nil {
		return nil, s.refused("work out the fleet's status", err)
	}
	if req.GetDistribution() != "" && len(r.GetRows()) == 0 && len(r.GetSummaries()) == 0 {
		return nil, noDistribution(req.GetDistribution())
	}
	if why := s.cfg.Store.Trouble(); sc.all && why != "" {
		r.Troubles = append(r.Troubles, why)
	}
	return r, s.veil(sc, r)
}

// Explain says why a cluster runs what it runs.
func (s *Service) Explain(ctx context.Context, req *fleetv1.ExplainRequest) (*fleetv1.ExplainResponse, error) {
	cluster, err := subscription(req.GetCluster(), req.GetDistribution())
	if err != nil {
		return nil, err
	}
	sc := scopeOf(ctx)
	if err := sc.must(cluster); err != nil {
		return nil, err
	}
	r, err := s.cfg.Conductor.Explain(time.Now(), cluster, req.GetDistribution())
	if err != nil {
		return nil, s.refused(fmt.Sprintf("explain %s of %s", req.GetDistribution(), cluster), err)
	}
	if !sc.all { // what only the vendor may type
		r.Next = slices.DeleteFunc(r.Next, func(next string) bool {
			return slices.ContainsFunc([]string{"hub rollout ", "hub release ", "hub cluster "}, func(c string) bool { return strings.HasPrefix(next, c) })
		})
	}
	return r, s.veil(sc, r)
}

// coalesce is the least time between two messages of a watch.
const coalesce = 200 * time.Millisecond

// Watch sends a number that grows with every change. Ages and silence change without anybody's doing,
// so a message goes out with every heartbeat too.
func (s *Service) Watch(_ *fleetv1.WatchRequest, stream fleetv1.FleetService_WatchServer) error {
	changes, cancel := s.cfg.Spokes.Subscribe()
	defer cancel()
	beat := time.NewTicker(s.cfg.Heartbeat)
	defer beat.Stop()
	pause := time.NewTicker(coalesce)
	defer pause.Stop()
	for revision := uint64(1); ; revision++ {
		if err := stream.Send(&fleetv1.WatchResponse{Revision: revision}); err != nil {
			return err
		}
		pause.Reset(coalesce)
		if err := s.wait(stream.Context(), pause.C, nil); err != nil {
			return err
		}
		if err := s.wait(stream.Context(), beat.C, changes); err != nil {
			return err
		}
	}
}

// wait until either channel has something, or the stream is over.
func (s *Service) wait(ctx context.Context, tick <-chan time.Time, changes <-chan struct{}) error {
	select {
	case <-tick:
		return nil
	case <-changes:
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}
