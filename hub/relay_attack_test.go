package hub

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/relayed"
	"github.com/wheelwright-dev/wheelwright/pkg/sealed"
	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	channelv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/channel/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	relayv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/relay/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

type (
	up   = *channelv1.ConnectRequest
	down = *channelv1.ConnectResponse
)

// thief has all that a relay has, its keys too, and does with what it carries what it likes.
type thief struct {
	channelv1.UnimplementedChannelServiceServer
	t     *testing.T
	carry relayv1.RelayService_CarryClient

	sending sync.Mutex
	mu      sync.Mutex
	last    uint64
	answers map[uint64]chan down
	kept    [][2][]proto.Message // of each channel that was: what went up, and down

	// What becomes of the n-th frame of a channel, from 0; nil: it is passed on.
	onUp   func(n int, m up) []up
	onDown func(n int, m down) []down
	word   error // that a channel ends with, at once
}

func (e *thief) Connect(s channelv1.ChannelService_ConnectServer) error {
	e.mu.Lock()
	if e.word != nil {
		defer e.mu.Unlock()
		return e.word
	}
	e.last++
	number, answers, onUp, onDown := e.last, make(chan down, 256), e.onUp, e.onDown
	e.answers[number] = answers
	e.mu.Unlock()
	var frames [2][]proto.Message
	defer func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		delete(e.answers, number)
		e.kept = append(e.kept, frames)
	}()
	said, left := make(chan up), make(chan struct{})
	defer close(left)
	go func() {
		defer close(said)
		for {
			m, err := s.Recv()
			if err != nil {
				return
			}
			select {
			case said <- m:
			case <-left:
				return
			}
		}
	}()
	for {
		select {
		case m, ok := <-said:
			if !ok {
				e.send(&relayv1.CarryRequest{Channel: number, Frame: &relayv1.CarryRequest_Gone{Gone: &relayv1.Gone{}}})
				return nil
			}
			all := []up{m}
			if onUp != nil {
				all = onUp(len(frames[0]), m)
			}
			frames[0] = append(frames[0], m)
			for _, m := range all {
				e.send(carried(number, m))
			}
		case m, ok := <-answers:
			if !ok {
				return status.Error(codes.Unavailable, "over")
			}
			all := []down{m}
			if onDown != nil {
				all = onDown(len(frames[1]), m)
			}
			frames[1] = append(frames[1], m)
			for _, m := range all {
				if err := s.Send(m); err != nil {
					return err
				}
			}
		}
	}
}

func carried(number uint64, m up) *relayv1.CarryRequest {
	if open := m.GetOpen(); open != nil {
		return &relayv1.CarryRequest{Channel: number, Frame: &relayv1.CarryRequest_Open{Open: open}}
	}
	return &relayv1.CarryRequest{Channel: number, Frame: &relayv1.CarryRequest_Sealed{Sealed: m.GetSealed()}}
}

func (e *thief) send(m *relayv1.CarryRequest) {
	e.sending.Lock()
	defer e.sending.Unlock()
	_ = e.carry.Send(m)
}

// listen takes what the hub says, as a relay does.
func (e *thief) listen() {
	var bodies relayed.Bodies
	for {
		m, err := e.carry.Recv()
		if err != nil {
			return
		}
		var to down
		switch f := m.GetFrame().(type) {
		case *relayv1.CarryResponse_Body:
			bodies.Sent(sha256.Sum256(f.Body.GetContent()), len(f.Body.GetContent()), f.Body.GetContent())
			continue
		case *relayv1.CarryResponse_Referred:
			body, found := bodies.Find([32]byte(f.Referred.GetDigest()))
			if !found {
				e.t.Error("the hub refers to a body that is not there")
			}
			to = &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Sealed{Sealed: &channelv1.Sealed{Body: body, Tag: f.Referred.GetTag()}}}
		case *relayv1.CarryResponse_Challenge:
			to = &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Challenge{Challenge: f.Challenge}}
		case *relayv1.CarryResponse_Refused:
			to = &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Refused{Refused: f.Refused}}
		case *relayv1.CarryResponse_Sealed:
			to = &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Sealed{Sealed: f.Sealed}}
		}
		e.mu.Lock()
		if answers := e.answers[m.GetChannel()]; answers != nil && to != nil {
			answers <- to
		} else if answers != nil && m.GetGone() != nil {
			close(answers)
			delete(e.answers, m.GetChannel())
		}
		e.mu.Unlock()
	}
}

// raw is a channel that the thief opens by itself.
func (e *thief) raw(open *channelv1.Open) (number uint64, answers chan down) {
	e.mu.Lock()
	e.last++
	number, answers = e.last, make(chan down, 256)
	e.answers[number] = answers
	e.mu.Unlock()
	e.send(&relayv1.CarryRequest{Channel: number, Frame: &relayv1.CarryRequest_Open{Open: open}})
	return number, answers
}

func (e *thief) behave(onUp func(int, up) []up, onDown func(int, down) []down, word error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.onUp, e.onDown, e.word = onUp, onDown, word
}

// altered is a frame with another body.
func altered(m proto.Message) proto.Message {
	m = proto.Clone(m)
	var s *channelv1.Sealed
	switch m := m.(type) {
	case up:
		s = m.GetSealed()
	case down:
		s = m.GetSealed()
	}
	if s.Body = bytes.Clone(s.GetBody()); len(s.Body) == 0 {
		s.Body = []byte{0}
	}
	s.Body[len(s.Body)-1] ^= 1
	return m
}

func sealedUp(body proto.Message, tag []byte) up {
	b, err := proto.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &channelv1.ConnectRequest{Frame: &channelv1.ConnectRequest_Sealed{Sealed: &channelv1.Sealed{Body: b, Tag: tag}}}
}

func sealedDown(body proto.Message, tag []byte, end bool) down {
	b, err := proto.Marshal(body)
	if err != nil {
		panic(err)
	}
	return &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Sealed{Sealed: &channelv1.Sealed{Body: b, Tag: tag, End: end}}}
}

// whole is what a spoke is told by the hub in life, and by nobody else.
const whole = "welcome desired ack 1 ack 2"

// life is a spoke's: it greets, takes what is offered and says two things. It returns what it took for the hub's word.
func life(s talk) (took string, err error) {
	var all []string
	defer func() { took = strings.Join(all, " ") }()
	if err := s.Send(greeting("j1", uint64(time.Now().UnixNano()))); err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	for len(all) < 4 {
		m, err := s.Recv()
		if err != nil {
			return "", err
		}
		switch {
		case m.GetWelcome() != nil:
			all = append(all, "welcome")
		case m.GetDesired() != nil:
			all = append(all, "desired")
			for seq := range uint64(2) {
				if err := s.Send(settled(seq+1, "1.1.0")); err != nil && !errors.Is(err, io.EOF) {
					return "", err
				}
				if seq == 0 {
					if m, err = s.Recv(); err != nil { // one at a time, so that it is known what was acknowledged
						return "", err
					}
					all = append(all, fmt.Sprint("ack ", m.GetAck().GetSeq()))
				}
			}
		case m.GetAck() != nil:
			all = append(all, fmt.Sprint("ack ", m.GetAck().GetSeq()))
		case m.GetHeartbeat() == nil:
			all = append(all, fmt.Sprintf("%T", m.GetBody()))
		}
	}
	return "", nil
}

// noKey is what a relay has in place of a key, a tag or a nonce.
func noKey() []byte { b := make([]byte, 32); _, _ = rand.Read(b); return b }

// errNoEnd: neither end found out, and both wait for what does not come.
var errNoEnd = errors.New("neither end found anything, and what was to come did not")

// A relay that has every key of its own, and its spokes' and hub's whole traffic, gets nothing by it but their silence.
func TestARelayThatAttacksIsFoundOut(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.1.0", "example.com/backend:1.1.0")
	hub := start(t, Config{Dir: t.TempDir(), Poll: 50 * time.Millisecond, Heartbeat: time.Hour})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir}}); err != nil {
		t.Fatal(err)
	}
	hub.release(t, "1.1.0")
	e, addr, client, server := newThief(t, hub)
	n := 0
	// spoke is a new cluster's behind the thief, with a ticket.
	spoke := func(t *testing.T) (string, farSpoke, relayed.Ticket) {
		t.Helper()
		n++
		name := fmt.Sprintf("acme/eu-%d", n)
		s := hub.through(t, hub.enrol(t, name), addr)
		direct, err := transport.Dial(hub.Addr, s.identity)
		if err != nil {
			t.Fatal(err)
		}
		defer direct.Close()
		ticket, err := relayed.Ask(t.Context(), direct)
		if err != nil {
			t.Fatal(err)
		}
		return name, s, ticket
	}
	// within bounds one conversation. A story that has failed already cannot be spoiled by impatience.
	within := func(sub *testing.T) context.Context {
		patience := 30 * time.Second
		if t.Failed() {
			patience = time.Second
		}
		ctx, leave := context.WithTimeoutCause(sub.Context(), patience, errNoEnd)
		sub.Cleanup(leave)
		return ctx
	}
	// lives is one channel under the thief's present behaviour.
	lives := func(t *testing.T, s farSpoke, ticket relayed.Ticket) (string, error) {
		t.Helper()
		ctx, leave := context.WithCancel(within(t))
		defer leave()
		stream, err := relayed.Open(ctx, s.relay, ticket)
		if err != nil {
			return "", err
		}
		return life(stream)
	}
	name, first, ticket := spoke(t)
	if took, err := lives(t, first, ticket); err != nil || took != whole {
		t.Fatalf("without an attack %s took %q, %v", name, took, err)
	}
	await(t, "the thief to have kept it", func() bool {
		e.mu.Lock()
		defer e.mu.Unlock()
		return len(e.kept) > 0
	})

	forged := func(err error) bool { return errors.Is(err, sealed.ErrForged) }
	lost := func(err error) bool {
		return status.Code(err) == codes.DataLoss && strings.Contains(err.Error(), "is not this spoke's")
	}
	attacks := 0
	on := func(name string, onUp func(int, up) []up, onDown func(int, down) []down, word error, want string, found func(error) bool) {
		attacks++
		t.Run(name, func(t *testing.T) {
			cluster, s, ticket := spoke(t)
			e.behave(onUp, onDown, word)
			defer e.behave(nil, nil, nil)
			took, err := lives(t, s, ticket)
			if !found(err) || errors.Is(err, errNoEnd) {
				t.Errorf("it was not found out, and ended with %v", err)
			}
			if took != want {
				t.Errorf("the spoke took %q for the hub's word, want %q", took, want)
			}
			hub.unharmed(t, cluster)
			e.behave(nil, nil, nil)
			if took, err := lives(t, s, ticket); err != nil || !strings.HasPrefix(took, "welcome desired") {
				t.Errorf("afterwards, through an honest relay: %q, %v", took, err)
			}
		})
	}
	at := func(frame int, do func(down) []down) func(int, down) []down {
		return func(n int, m down) []down {
			if n == frame {
				return do(m)
			}
			return []down{m}
		}
	}
	upAt := func(frame int, do func(up) []up) func(int, up) []up {
		return func(n int, m up) []up {
			if n == frame {
				return do(m)
			}
			return []up{m}
		}
	}
	challenge := func(nonce []byte) down {
		return &channelv1.ConnectResponse{Frame: &channelv1.ConnectResponse_Challenge{Challenge: &channelv1.Challenge{Nonce: nonce}}}
	}
	offer := &syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Desired{Desired: &syncv1.DesiredState{Revision: 66, Distributions: []*syncv1.DistributionOffers{{Distribution: "shop"}}}}}
	removed := status.New(codes.Unauthenticated, "the hub does not know this identity any more").Proto()

	// Towards the spoke. Its frame 0 is the challenge, 1 the welcome, 2 what it is offered, 3 and 4 what is acknowledged.
	on("the welcome is altered", nil, at(1, func(m down) []down { return []down{altered(m).(down)} }), nil, "", forged)
	on("what is offered is altered", nil, at(2, func(m down) []down { return []down{altered(m).(down)} }), nil, "welcome", forged)
	on("an acknowledgement is altered", nil, at(3, func(m down) []down { return []down{altered(m).(down)} }), nil, "welcome desired", forged)
	on("the welcome is repeated", nil, at(1, func(m down) []down { return []down{m, m} }), nil, "welcome", forged)
	on("what is offered is left out", nil, func() func(int, down) []down {
		var offered down
		return func(n int, m down) []down {
			switch n {
			case 1:
				offered = m
				return nil
			case 2:
				return []down{m, offered}
			}
			return []down{m}
		}
	}(), nil, "", forged)
	on("an offer is made up without a tag", nil, at(2, func(down) []down { return []down{sealedDown(offer, nil, false)} }), nil, "welcome", forged)
	on("an offer is made up with a tag of its own", nil, at(2, func(down) []down { return []down{sealedDown(offer, noKey(), false)} }), nil, "welcome", forged)
	on("an offer is made up under another's tag", nil, at(2, func(m down) []down { return []down{sealedDown(offer, m.GetSealed().GetTag(), false)} }), nil, "welcome", forged)
	on("the spoke is told that it was removed", nil, at(2, func(down) []down { return []down{sealedDown(removed, noKey(), true)} }), nil, "welcome", forged)
	on("a message is made the last", nil, at(1, func(m down) []down {
		m = proto.CloneOf(m)
		m.GetSealed().End = true
		return []down{m}
	}), nil, "", forged)
	var own up
	on("the spoke's greeting comes back as the hub's", upAt(1, func(m up) []up { own = m; return []up{m} }), at(1, func(down) []down {
		return []down{{Frame: &channelv1.ConnectResponse_Sealed{Sealed: own.GetSealed()}}}
	}), nil, "", forged)
	on("the hub's nonce is exchanged", nil, at(0, func(down) []down { return []down{challenge(noKey())} }), nil, "", func(err error) bool { return err != nil })
	on("the hub's nonce is too short", nil, at(0, func(down) []down { return []down{challenge(noKey()[:16])} }), nil, "", func(err error) bool { return errors.Is(err, relayed.ErrProtocol) })
	on("a second challenge comes", nil, at(1, func(m down) []down { return []down{challenge(noKey()), m} }), nil, "", func(err error) bool { return errors.Is(err, relayed.ErrProtocol) })
	on("a refusal is made up", nil, at(0, func(down) []down {
		return []down{{Frame: &channelv1.ConnectResponse_Refused{Refused: &channelv1.Refused{Reason: "you were removed"}}}}
	}), nil, "", func(err error) bool { return errors.Is(err, relayed.ErrRefused) && status.Code(err) == codes.Unknown })
	quarantine, err := status.New(codes.PermissionDenied, "in quarantine").WithDetails(&syncv1.Refusal{Kind: syncv1.RefusalKind_REFUSAL_KIND_QUARANTINED})
	if err != nil {
		t.Fatal(err)
	}
	on("a status is made up", nil, nil, quarantine.Err(), "", func(err error) bool {
		var i relayed.Interruption
		return errors.As(err, &i) && len(status.Convert(err).Details()) == 0 && status.Code(err) == codes.Unknown
	})
	on("frames of an earlier channel come", nil, func(n int, m down) []down {
		e.mu.Lock()
		defer e.mu.Unlock()
		if n == 1 {
			return []down{e.kept[0][1][1].(down)}
		}
		return []down{m}
	}, nil, "", forged)
	on("a whole earlier channel comes", nil, func(n int, _ down) []down {
		e.mu.Lock()
		defer e.mu.Unlock()
		return []down{e.kept[0][1][n].(down)}
	}, nil, "", func(err error) bool { return err != nil })

	// Towards the hub. The spoke's frame 0 opens, 1 greets, 2 and 3 are events.
	on("the greeting is altered", upAt(1, func(m up) []up { return []up{altered(m).(up)} }), nil, nil, "", func(err error) bool { return err != nil })
	on("an event is altered", upAt(2, func(m up) []up { return []up{altered(m).(up)} }), nil, nil, "welcome desired", lost)
	var event up
	on("an event is repeated", func(n int, m up) []up {
		switch n {
		case 2:
			event = m
		case 3:
			return []up{event, m}
		}
		return []up{m}
	}, nil, nil, "welcome desired ack 1", lost)
	on("the greeting is left out", upAt(1, func(up) []up { return []up{sealedUp(settled(1, "forged"), noKey())} }), nil, nil, "", func(err error) bool { return err != nil })
	on("an event is made up", upAt(2, func(m up) []up { return []up{sealedUp(settled(1, "forged"), noKey()), m} }), nil, nil, "welcome desired", lost)
	on("an event is made up under another's tag", upAt(2, func(m up) []up { return []up{sealedUp(settled(1, "forged"), m.GetSealed().GetTag())} }), nil, nil, "welcome desired", lost)
	var welcome down
	on("the hub's own words come back as the spoke's", upAt(2, func(m up) []up {
		return []up{{Frame: &channelv1.ConnectRequest_Sealed{Sealed: welcome.GetSealed()}}, m}
	}), at(1, func(m down) []down { welcome = m; return []down{m} }), nil, "welcome desired", lost)
	on("another channel's event comes", upAt(2, func(m up) []up {
		e.mu.Lock()
		defer e.mu.Unlock()
		return []up{e.kept[0][0][2].(up), m}
	}), nil, nil, "welcome desired", lost)
	on("the last event is called the spoke's last word", upAt(3, func(m up) []up {
		m = proto.CloneOf(m)
		m.GetSealed().End = true
		return []up{m}
	}), nil, nil, "welcome desired ack 1", lost)
	on("the spoke's nonce is exchanged", upAt(0, func(m up) []up {
		m = proto.CloneOf(m)
		m.GetOpen().Nonce = noKey()
		return []up{m}
	}), nil, nil, "", func(err error) bool { return err != nil })

	// With what it has, at the hub's door.
	refused := func(name string, open *channelv1.Open, then ...up) {
		attacks++
		t.Run(name, func(t *testing.T) {
			ctx := within(t)
			number, answers := e.raw(open)
			for _, m := range then {
				e.send(carried(number, m))
			}
			for {
				select {
				case m, ok := <-answers:
					if !ok {
						return
					}
					if m.GetRefused() != nil {
						return
					}
					if m.GetSealed() != nil && !m.GetSealed().GetEnd() {
						t.Fatalf("the thief is served: %v", m)
					}
				case <-ctx.Done():
					t.Fatal("no answer")
				}
			}
		})
	}
	e.mu.Lock()
	past := e.kept[0][0]
	e.mu.Unlock()
	var spoken []up
	for _, m := range past[1:] {
		spoken = append(spoken, m.(up))
	}
	opened := past[0].(up).GetOpen()
	refused("an earlier channel is opened again, and said again", opened, spoken...)
	refused("a stolen ticket, without its key", &channelv1.Open{Ticket: opened.GetTicket(), Nonce: noKey()}, sealedUp(greeting("j1", 99), noKey()))
	bent := bytes.Clone(opened.GetTicket())
	bent[len(bent)/2] ^= 1
	refused("a ticket is altered", &channelv1.Open{Ticket: bent, Nonce: noKey()})
	refused("a ticket is made up", &channelv1.Open{Ticket: bytes.Repeat(noKey(), 4), Nonce: noKey()})
	refused("a ticket is cut off", &channelv1.Open{Ticket: opened.GetTicket()[:20], Nonce: noKey()})
	refused("no ticket", &channelv1.Open{Nonce: noKey()})
	refused("a nonce is too short", &channelv1.Open{Ticket: opened.GetTicket(), Nonce: []byte{1}})
	gone, goneSpoke, goneTicket := spoke(t)
	if took, err := lives(t, goneSpoke, goneTicket); err != nil || took != whole {
		t.Fatalf("%q, %v", took, err)
	}
	if _, err := hub.fleet.RemoveCluster(t.Context(), &fleetv1.RemoveClusterRequest{Name: gone}); err != nil {
		t.Fatal(err)
	}
	refused("the ticket of a cluster that was removed", &channelv1.Open{Ticket: goneTicket.Sealed, Nonce: noKey()}, sealedUp(greeting("j1", 99), noKey()))
	hub.unharmed(t, name)

	attacks++
	t.Run("its own certificate, in a spoke's and an operator's place", func(t *testing.T) {
		ctx := within(t)
		conn, err := transport.Dial(hub.Addr, &tls.Config{RootCAs: hub.trust(t).RootCAs, Certificates: []tls.Certificate{client}})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := syncv1.NewSyncServiceClient(conn).OpenRelayed(ctx, &syncv1.OpenRelayedRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a ticket: %v", err)
		}
		if _, err := fleetv1.NewFleetServiceClient(conn).ListClusters(ctx, &fleetv1.ListClustersRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("the fleet: %v", err)
		}
		if _, err := syncv1.NewSyncServiceClient(conn).Renew(ctx, &syncv1.RenewRequest{}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a renewal: %v", err)
		}
	})
	attacks++
	t.Run("its own certificate, in the hub's place", func(t *testing.T) {
		l, err := tls.Listen("tcp", relayHost+":0", &tls.Config{Certificates: []tls.Certificate{server}, NextProtos: []string{"h2"}})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				_ = conn.(*tls.Conn).Handshake()
				_ = conn.Close()
			}
		}()
		for _, as := range []string{hub.Addr, l.Addr().String()} { // under the hub's name, and under its own
			cfg := first.identity.Clone()
			cfg.VerifyConnection = transport.NotRelay
			host, _, _ := net.SplitHostPort(as)
			conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{ServerName: host, RootCAs: cfg.RootCAs, VerifyConnection: cfg.VerifyConnection, NextProtos: []string{"h2"}})
			if err == nil {
				conn.Close()
				t.Errorf("taken for the hub as %s", as)
			}
		}
	})
	attacks++
	t.Run("a spoke's certificate, in a relay's place", func(t *testing.T) {
		conn, err := transport.Dial(hub.Addr, first.identity)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		stream, err := relayv1.NewRelayServiceClient(conn).Carry(within(t))
		if err == nil {
			_, err = stream.Recv()
		}
		if status.Code(err) != codes.PermissionDenied {
			t.Errorf("got %v", err)
		}
	})
	attacks++
	t.Run("a number is used twice", func(t *testing.T) {
		e.send(&relayv1.CarryRequest{Channel: 1, Frame: &relayv1.CarryRequest_Open{Open: &channelv1.Open{Ticket: ticket.Sealed, Nonce: noKey()}}})
		select {
		case <-e.carry.Context().Done():
		case <-within(t).Done():
			t.Error("the hub did not end the stream")
		}
	})
	t.Logf("%d attacks", attacks)
	if attacks < 20 {
		t.Errorf("%d attacks are too few", attacks)
	}
}

// unharmed: the hub knows of the cluster what its spoke said, and serves it.
func (r *running) unharmed(t *testing.T, cluster string) {
	t.Helper()
	events, err := r.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Cluster: cluster})
	if err != nil {
		t.Fatal(err)
	}
	said := 0
	for _, e := range events.GetEvents() {
		if strings.Contains(e.GetMessage()+e.GetVersion(), "forged") || strings.Contains(e.GetMessage(), "quarantine") {
			t.Errorf("the hub was told %v", e)
		}
		if e.GetKind() == string(fleet.EventPhase) {
			said++
		}
	}
	if said > 2 {
		t.Errorf("%d events of a spoke that said two", said)
	}
	all, err := r.fleet.ListClusters(t.Context(), &fleetv1.ListClustersRequest{})
	i := slices.IndexFunc(all.GetClusters(), func(c *fleetv1.Cluster) bool { return c.GetName() == cluster })
	if err != nil || i < 0 || all.GetClusters()[i].GetStanding() != "" {
		t.Errorf("%s: %v, %v", cluster, all, err)
	}
}

// newThief joins as a relay does, and listens as one.
func newThief(t *testing.T, hub *running) (e *thief, addr string, client, server tls.Certificate) {
	t.Helper()
	client, server, authorities := certified(t, hub.joinRelay(t, "fra-1"))
	conn, err := transport.Dial(hub.Addr, &tls.Config{RootCAs: authorities, Certificates: []tls.Certificate{client}})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	e = &thief{t: t, answers: map[uint64]chan down{}}
	if e.carry, err = relayv1.NewRelayServiceClient(conn).Carry(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", relayHost+":0")
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer(transport.ServerOptions(&tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert, NextProtos: []string{transport.RelayProtocol}})...)
	channelv1.RegisterChannelServiceServer(g, e)
	var running sync.WaitGroup
	running.Go(e.listen)
	running.Go(func() { _ = g.Serve(l) })
	t.Cleanup(func() {
		g.Stop()
		cancel()
		conn.Close()
		running.Wait()
	})
	return e, l.Addr().String(), client, server
}
