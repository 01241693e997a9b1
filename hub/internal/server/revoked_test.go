package server_test

import (
	"context"
	"crypto/sha256"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// cutWait is how long a revocation may take to reach a stream on which nothing is said.
const cutWait = 5 * time.Second

func (h *house) audited(c fleet.Cluster) store.Audited {
	return h.store.Audited(fleet.Event{Kind: fleet.EventIdentity, Cluster: c}, fleet.Entry{Actor: "operator admin", Action: "cluster reject"})
}

// received is how a stream's next message ended; it fails the test where nothing comes.
func received(t *testing.T, recv func() error) error {
	t.Helper()
	got := make(chan error, 1)
	go func() { got <- recv() }()
	select {
	case err := <-got:
		return err
	case <-time.After(cutWait):
		t.Fatal("the stream lives on")
		return nil
	}
}

func TestRevocationCutsASilentStreamAtOnce(t *testing.T) {
	h := build(t, services{sync: echo{}, fleet: feed{}}, time.Second)
	for name, end := range map[string]func(fleet.Cluster){
		"removed":  func(c fleet.Cluster) { must(t, h.store.RemoveCluster(c)) },
		"rejected": func(c fleet.Cluster) { must(t, h.audited(c).RejectCluster(c, "why", time.Now())) },
		"rejoined": func(c fleet.Cluster) { h.spoke(c) },
		"copied": func(c fleet.Cluster) {
			must(t, h.store.Session(c, "a", 2, time.Now()))
			if h.store.Session(c, "b", 3, time.Now()) == nil {
				t.Error("a copy was let in")
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			cluster := fleet.Cluster("acme/" + name)
			other := connect(t, h.dial(h.spoke("globex/"+fleet.Cluster(name))))
			stream := connect(t, h.dial(h.spoke(cluster)))
			began := time.Now()
			end(cluster)
			err := received(t, func() error { _, err := stream.Recv(); return err })
			want := codes.Unauthenticated
			if name == "copied" {
				want = codes.PermissionDenied
			}
			wantCode(t, err, want, "hub cluster invite")
			t.Logf("cut after %v", time.Since(began).Round(time.Millisecond))
			must(t, other.Send(&syncv1.ConnectRequest{})) // nobody else's was
			_, err = other.Recv()
			must(t, err)
		})
	}
	t.Run("operator", func(t *testing.T) {
		watch, err := fleetv1.NewFleetServiceClient(h.dial(h.operatorAs("maria", "viewer"))).Watch(t.Context(), &fleetv1.WatchRequest{})
		must(t, err)
		_, err = watch.Recv()
		must(t, err)
		must(t, h.removeOperator("maria"))
		wantCode(t, received(t, func() error { _, err := watch.Recv(); return err }), codes.Unauthenticated, "its operator was removed")
	})
}

// flood sends without end and says when it was let go.
type flood struct {
	syncv1.UnimplementedSyncServiceServer
	full, over chan struct{}
}

func (f flood) FetchBundle(_ *syncv1.FetchBundleRequest, stream syncv1.SyncService_FetchBundleServer) error {
	defer close(f.over)
	for n := 0; ; n++ {
		if n == 2 { // more than the client's window takes
			close(f.full)
		}
		if err := stream.Send(&syncv1.FetchBundleResponse{Data: make([]byte, 64<<10)}); err != nil {
			return err
		}
	}
}

// Who does not read holds a stream open as long as the connection lasts.
func TestRevocationCutsADownloadThatNobodyReads(t *testing.T) {
	f := flood{full: make(chan struct{}), over: make(chan struct{})}
	h := build(t, services{sync: f}, time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := syncv1.NewSyncServiceClient(h.dial(h.spoke(eu))).FetchBundle(ctx, &syncv1.FetchBundleRequest{})
	must(t, err)
	<-f.full
	must(t, h.store.RemoveCluster(eu))
	select {
	case <-f.over:
	case <-time.After(cutWait):
		t.Error("the download lives on")
	}
}

// A message costs no look at the record while nothing in it changed; one after a change is judged by what it says now.
func TestTheRecordIsAskedAgainWhereItChanged(t *testing.T) {
	h := build(t, services{sync: echo{}}, time.Second)
	stream := connect(t, h.dial(h.spoke(eu)))
	exchange := func(times int) {
		t.Helper()
		for range times {
			must(t, stream.Send(&syncv1.ConnectRequest{}))
			_, err := stream.Recv()
			must(t, err)
		}
	}
	exchange(1)
	before := h.asked.times.Load()
	exchange(100)
	if n := h.asked.times.Load() - before; n != 0 {
		t.Errorf("the record was asked %d times for 100 messages each way while nothing changed, want none", n)
	}
	h.spoke("globex/us-1") // another's joining may have changed this one's standing
	exchange(1)
	if n := h.asked.times.Load() - before; n < 1 || n > 8 {
		t.Errorf("the record was asked %d times after a change, want once or so", n)
	}
	must(t, h.audited(eu).RejectCluster(eu, "why", time.Now()))
	_ = stream.Send(&syncv1.ConnectRequest{}) // it may have ended; Recv says why
	wantCode(t, received(t, func() error { _, err := stream.Recv(); return err }), codes.Unauthenticated, "hub cluster invite")
}

// The first use of a newer certificate is announced to nobody: the next message under the one before ends its stream.
func TestAMessageAfterAChangeIsJudgedAnew(t *testing.T) {
	h := build(t, services{sync: echo{}}, time.Second)
	certificate := h.spoke(eu)
	stream := connect(t, h.dial(certificate))
	current, next := sha256.Sum256(certificate.Certificate[0]), [32]byte{1}
	must(t, h.store.RenewIdentity(store.Renewal{Current: current, Next: next, Key: fleet.Fingerprint{1}, NotAfter: time.Now().Add(time.Hour)}))
	must(t, stream.Send(&syncv1.ConnectRequest{})) // the present one counts until then
	_, err := stream.Recv()
	must(t, err)
	_, err = h.store.Use(next, time.Now())
	must(t, err)
	_ = stream.Send(&syncv1.ConnectRequest{}) // Recv says how it ended
	wantCode(t, received(t, func() error { _, err := stream.Recv(); return err }), codes.PermissionDenied, "a newer certificate")
}
