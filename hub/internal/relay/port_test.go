package relay

import (
	"crypto/tls"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
)

func TestWhatAConnectionWantsIsSeenAndPassedOnWhole(t *testing.T) {
	for _, protocols := range [][]string{{"h2"}, {transport.RelayProtocol, "h2"}, nil} {
		client, server := net.Pipe()
		said := make(chan []byte, 1)
		go func() { // what the client says, as it is
			c := &recorder{Conn: client}
			_ = tls.Client(written{c, said}, &tls.Config{ServerName: "hub.example.com", NextProtos: protocols}).Handshake()
		}()
		got, replay, err := greeting(server, 10*time.Second)
		if err != nil || !slices.Equal(got, protocols) {
			t.Errorf("got %q, %v, want %q", got, err, protocols)
		}
		if want := <-said; string(want) != string(replay) {
			t.Errorf("%d bytes are passed on of %d", len(replay), len(want))
		}
		_ = client.Close()
		_ = server.Close()
	}
}

// written notes the first thing that is written.
type written struct {
	net.Conn
	said chan []byte
}

func (w written) Write(b []byte) (int, error) {
	select {
	case w.said <- slices.Clone(b):
	default:
	}
	return w.Conn.(*recorder).Conn.Write(b)
}

func TestWhatIsNoTLSIsRefused(t *testing.T) {
	for name, say := range map[string]func(net.Conn){
		"http":    func(c net.Conn) { _, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: hub\r\n\r\n") },
		"nothing": func(net.Conn) {},
		"endless": func(c net.Conn) { // a handshake message that is announced as larger than any
			_, _ = c.Write([]byte{22, 3, 1, 0x40, 0})
			for {
				if _, err := c.Write(make([]byte, 1<<10)); err != nil {
					return
				}
			}
		},
		"closed": func(c net.Conn) { _ = c.Close() },
	} {
		client, server := net.Pipe()
		go say(client)
		protocols, _, err := greeting(server, 300*time.Millisecond)
		if err == nil || !strings.Contains(err.Error(), "did not say what it wants") || protocols != nil {
			t.Errorf("%s: got %q, %v", name, protocols, err)
		}
		_ = client.Close()
		_ = server.Close()
	}
}

func TestABucketLetsSoManyThroughInASecond(t *testing.T) {
	b, now := bucket{per: 10, left: 10}, time.Unix(1, 0)
	took := 0
	for i := range 1000 { // ten seconds
		if b.take(now.Add(time.Duration(i) * 10 * time.Millisecond)) {
			took++
		}
	}
	if took < 105 || took > 110 {
		t.Errorf("%d were let through in ten seconds, want 10 at once and 10 in each", took)
	}
}
