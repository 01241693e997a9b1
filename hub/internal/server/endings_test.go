package server_test

import (
	"context"
	"crypto/tls"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// retryAfter is what a status says of when to come back.
func retryAfter(t *testing.T, err error) time.Duration {
	t.Helper()
	for _, d := range status.Convert(err).Details() {
		if r, ok := d.(*errdetails.RetryInfo); ok {
			return r.GetRetryDelay().AsDuration()
		}
	}
	t.Fatalf("%v does not say when to come back", err)
	return 0
}

// both answers streams, and floods whoever fetches.
type both struct {
	echo
	flood flood
}

func (b both) FetchBundle(req *syncv1.FetchBundleRequest, stream syncv1.SyncService_FetchBundleServer) error {
	return b.flood.FetchBundle(req, stream)
}

// Who does not read is cut by name and counted, and holds nobody else up.
func TestASpokeThatDoesNotReadIsCut(t *testing.T) {
	f := flood{full: make(chan struct{}), over: make(chan struct{})}
	h := build(t, services{sync: both{flood: f}, reading: 2 * time.Second}, time.Second)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, err := syncv1.NewSyncServiceClient(h.dial(h.spoke(eu))).FetchBundle(ctx, &syncv1.FetchBundleRequest{})
	must(t, err)
	other := connect(t, h.dial(h.spoke("globex/eu-1")))
	for over := false; !over; {
		must(t, other.Send(&syncv1.ConnectRequest{}))
		_, err := other.Recv()
		must(t, err)
		select {
		case <-f.over:
			over = true
		case <-t.Context().Done():
			t.Fatal("the stream that nobody reads lives on")
		default:
		}
	}
	if got := h.server.Stats().Slow; got != 1 {
		t.Errorf("%d streams were counted, want 1", got)
	}
	if log := h.log.String(); !strings.Contains(log, "does not read what it is sent") || !strings.Contains(log, string(eu)) {
		t.Errorf("the log does not name it:\n%s", log)
	}
}

func TestAnOldStreamIsToldToOpenTheNext(t *testing.T) {
	h := build(t, services{sync: echo{}, age: 2 * time.Second, reading: 400 * time.Millisecond}, time.Second)
	stream := connect(t, h.dial(h.spoke(eu)))
	_, err := stream.Recv()
	wantCode(t, err, codes.Unavailable, "open the next one")
	if after := retryAfter(t, err); after != 0 {
		t.Errorf("to come back after %v, want at once", after)
	}
}

// A hub that stops tells its fleet a part at a time when to come back, and those who come meanwhile.
func TestAHubThatStopsSaysWhenToComeBack(t *testing.T) {
	const perConnection, connections = 40, 3
	h := build(t, services{sync: echo{}}, 20*time.Second)
	var streams []syncv1.SyncService_ConnectClient
	certificate := h.spoke(eu)
	for range connections {
		conn := h.dial(certificate)
		for range perConnection {
			streams = append(streams, connect(t, conn))
		}
	}
	newcomer := syncv1.NewSyncServiceClient(h.dial(certificate))
	h.stop()
	told, ends := make(chan error, len(streams)), map[time.Duration]bool{}
	for _, s := range streams {
		go func() {
			_, err := s.Recv()
			told <- err
		}()
	}
	first := <-told
	refused := make(chan error, 1)
	go func() { // while the rest is told
		stream, err := newcomer.Connect(t.Context())
		if err == nil {
			_, err = stream.Recv()
		}
		refused <- err
	}()
	for n, err := 1, first; ; n, err = n+1, <-told {
		wantCode(t, err, codes.Unavailable, "the hub is stopping")
		after := retryAfter(t, err)
		if after > time.Minute {
			t.Errorf("to come back after %v", after)
		}
		ends[after] = true
		if n == len(streams) {
			break
		}
	}
	if len(ends) < len(streams)/2 {
		t.Errorf("%d streams were told %d times: the fleet comes back at once", len(streams), len(ends))
	}
	err := <-refused
	wantCode(t, err, codes.Unavailable, "the hub is stopping")
	retryAfter(t, err)
}

// A session that is resumed is its identity's, and ends with it.
func TestAResumedSessionIsLookedUpLikeAnyOther(t *testing.T) {
	h := build(t, services{sync: echo{}}, time.Second)
	certificate, sessions := h.spoke(eu), tls.NewLRUClientSessionCache(1)
	visit := func() (resumed bool, err error) {
		conn := h.dialWith(certificate, sessions)
		defer func() { _ = conn.Close() }()
		stream, err := syncv1.NewSyncServiceClient(conn).Connect(t.Context())
		must(t, err)
		_ = stream.Send(&syncv1.ConnectRequest{}) // what is wrong is told by Recv
		_, err = stream.Recv()
		if p, ok := peer.FromContext(stream.Context()); ok {
			resumed = p.AuthInfo.(credentials.TLSInfo).State.DidResume
		}
		return resumed, err
	}
	if resumed, err := visit(); resumed || err != nil {
		t.Fatalf("the first visit: resumed %v, %v", resumed, err)
	}
	if resumed, err := visit(); !resumed || err != nil {
		t.Fatalf("the second visit: resumed %v, %v", resumed, err)
	}
	must(t, h.store.RemoveCluster(eu))
	resumed, err := visit()
	if !resumed {
		t.Error("the session was not resumed: this tests nothing")
	}
	wantCode(t, err, codes.Unauthenticated, "hub cluster invite")
}
