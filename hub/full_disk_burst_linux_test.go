package hub

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// process runs a hub of its own on dir until it is killed. What it logged is there then.
func process(t *testing.T, dir string) (hub *running, kill func() (log string)) {
	t.Helper()
	c := spawn(t, dir, 0)
	kill = sync.OnceValue(func() string {
		_ = c.Process.Kill()
		_ = c.Wait() // it was killed
		c.in.Close()
		return c.log.String()
	})
	t.Cleanup(func() { kill() })
	return connected(t, c.info), kill
}

// talker is a spoke that reports its health, as fast as it is acknowledged.
type talker struct {
	name     string
	identity *tls.Config
	stream   syncv1.SyncService_ConnectClient
	acked    uint64
}

// report sends one event of some size, and waits for it to be acknowledged.
func (s *talker) report() error {
	health := []string{"Healthy", "Degraded"}[s.acked%2]
	err := s.stream.Send(&syncv1.ConnectRequest{Body: &syncv1.ConnectRequest_Event{Event: &syncv1.Event{Seq: s.acked + 1, Kind: syncv1.EventKind_EVENT_KIND_HEALTH,
		Distribution: "shop", Message: fmt.Sprintf("%d of %s: %s", s.acked+1, s.name, strings.Repeat("x", 2000)),
		Status: &syncv1.SubscriptionStatus{Distribution: "shop", Variant: "app", Namespace: "shop", RunningVersion: "1.0.0", Health: health, Objects: 1}}}})
	for err == nil {
		var m *syncv1.ConnectResponse
		if m, err = s.stream.Recv(); err == nil && m.GetAck() != nil {
			s.acked = m.GetAck().GetSeq()
			return nil
		}
	}
	return err
}

// Law 9, over the wire: while the disk fills up under spokes that report their health as fast as they can, what each
// was acknowledged is there after a kill, the operator is told why nothing else is, and with room again it goes on.
func TestLaw9AFullDiskDuringABurstOfHealth(t *testing.T) {
	disk := smallDisk(t, "48")
	dir := filepath.Join(disk, "data")
	hub, kill := process(t, dir)
	var all []*talker
	for _, name := range []string{"acme/eu-1", "acme/eu-2", "globex/eu-1", "initech/ap-1"} {
		s := &talker{name: name, identity: hub.enrol(t, name)}
		s.stream, _ = hub.dial(t, s.identity).connect(t, 0)
		if err := s.report(); err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
	}
	filler := fill(t, disk, 512<<10)
	var burst sync.WaitGroup
	for _, s := range all {
		burst.Go(func() {
			const most = 100_000 // many times what there is room for
			for range most {
				if s.report() != nil {
					return
				}
			}
			t.Errorf("%s: %d events found room on a full disk", s.name, s.acked)
		})
	}
	burst.Wait()
	status, err := hub.fleet.GetStatus(t.Context(), &fleetv1.GetStatusRequest{})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"no space left on device", "nothing is acknowledged", "df -h " + dir} {
		if told := strings.Join(status.GetTroubles(), "\n"); !strings.Contains(told, want) {
			t.Errorf("the operator is told %q, want %q in it", told, want)
		}
	}
	if log := kill(); !strings.Contains(log, "no space left on device") || strings.Contains(log, "panic") {
		t.Errorf("the log:\n%s", log)
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}

	hub, _ = process(t, dir)
	for _, s := range all {
		list, err := hub.fleet.ListEvents(t.Context(), &fleetv1.ListEventsRequest{Cluster: s.name, Distribution: "shop", Limit: 1})
		if err != nil {
			t.Fatal(err)
		}
		stored, welcome := uint64(0), (*syncv1.Welcome)(nil)
		for _, e := range list.GetEvents() {
			if _, err := fmt.Sscanf(e.GetMessage(), "%d of", &stored); err != nil {
				t.Errorf("%s: %v", e, err)
			}
		}
		s.stream, welcome = hub.dial(t, s.identity).connect(t, 0)
		// What was stored when the disk filled up may be one more than the spoke was told.
		if at := welcome.GetAckedSeq(); at != stored || at < s.acked || at > s.acked+1 {
			t.Errorf("%s: acknowledged were %d, after the kill the last event is %d and the hub says %d", s.name, s.acked, stored, at)
		}
		s.acked = welcome.GetAckedSeq()
		if err := s.report(); err != nil {
			t.Errorf("%s: with room again: %v", s.name, err)
		}
		t.Logf("%s: %d events", s.name, s.acked)
	}
}
