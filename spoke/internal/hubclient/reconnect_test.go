package hubclient

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func told(t *testing.T, code codes.Code, after time.Duration) error {
	t.Helper()
	st, err := status.New(code, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	if err != nil {
		t.Fatal(err)
	}
	return wireError{"hub:1", st.Err()}
}

func TestASpokeComesBackWhenItsHubSays(t *testing.T) {
	away := errors.New("away")
	for name, c := range map[string]struct {
		err     error
		attempt int
		within  time.Duration
		jitter  float64
		want    time.Duration
	}{
		"cut off, over the time that was told":      {away, 0, 40 * time.Second, 0.5, 20 * time.Second},
		"cut off, the first of all":                 {away, 0, 40 * time.Second, 0, 0},
		"still away, by the backoff":                {away, 3, 0, 0.5, 2 * time.Second},
		"often away, by the longer of the two":      {away, 9, 10 * time.Second, 0.5, 15 * time.Second},
		"told exactly, whatever else":               {told(t, codes.Unavailable, 7*time.Second), 9, time.Minute, 0.9, 7 * time.Second},
		"told by a hub that is busy":                {told(t, codes.ResourceExhausted, 3*time.Second), 0, 0, 0.9, 3 * time.Second},
		"told too much":                             {told(t, codes.Unavailable, 1000*time.Hour), 0, 0, 0.5, mostTold},
		"told nothing that is a time":               {told(t, codes.Unavailable, -time.Hour), 0, 0, 0.5, 250 * time.Millisecond},
		"told at once, by a hub that does so often": {told(t, codes.Unavailable, 0), 4, 0, 0.5, 4 * time.Second},
	} {
		if got := pause(c.err, c.attempt, c.within, c.jitter); got != c.want {
			t.Errorf("%s: got %v, want %v", name, got, c.want)
		}
	}
	if !reopens(told(t, codes.Unavailable, 0)) || reopens(told(t, codes.Unavailable, time.Second)) || reopens(told(t, codes.ResourceExhausted, 0)) || reopens(away) {
		t.Error("what opens the next stream at once is another answer than Unavailable with no delay")
	}
	if kind, _, _ := diagnose(told(t, codes.ResourceExhausted, 0)); kind != "busy" {
		t.Errorf("a busy hub is %q", kind)
	}
}

// The window of the last heartbeat counts, once, and the next stream goes on with the TLS session of the one before.
func TestTheNextStreamResumesTheSession(t *testing.T) {
	h := newHub(t)
	resumed := make(chan bool, 10)
	h.connect = func(h *testHub, n int, s stream) error {
		p, _ := peer.FromContext(s.Context())
		resumed <- p.AuthInfo.(credentials.TLSInfo).State.DidResume
		if n > 1 {
			return h.serve(s)
		}
		if err := s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Welcome{Welcome: &syncv1.Welcome{Cluster: "acme/eu-1", Epoch: 1, HeartbeatSeconds: 1, ReconnectWithinSeconds: 3600}}}); err != nil {
			return err
		}
		if err := s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Heartbeat{Heartbeat: &syncv1.Heartbeat{ReconnectWithinSeconds: 1}}}); err != nil {
			return err
		}
		if err := s.Send(&syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Heartbeat{Heartbeat: &syncv1.Heartbeat{}}}); err != nil {
			return err
		}
		return status.Error(codes.Unavailable, "broken on purpose")
	}
	s := joined(t, h.start())
	s.run(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute) // an hour's window would outlast it
	defer cancel()
	for n, want := range []bool{false, true} {
		select {
		case got := <-resumed:
			if got != want {
				t.Errorf("stream %d: resumed %v, want %v", n+1, got, want)
			}
		case <-ctx.Done():
			t.Fatal("the spoke does not come back within what the last heartbeat said")
		}
	}
}

func TestASessionIsResumedUnderTheSameIdentityOnly(t *testing.T) {
	var r resumption
	id := Identity{certificate: []byte("one"), authorities: [][]byte{[]byte("a")}}
	first := r.of(id)
	if r.of(id) != first {
		t.Error("the next stream has another cache")
	}
	renewed := id
	renewed.certificate = []byte("two")
	second := r.of(renewed)
	if second == first {
		t.Error("a new certificate goes on with the session of the one before")
	}
	rotated := renewed
	rotated.authorities = [][]byte{[]byte("a"), []byte("b")}
	if r.of(rotated) == second {
		t.Error("new authorities go on with the session of those before")
	}
}
