package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

func TestEventsAreFollowedByTheirNumber(t *testing.T) {
	for _, c := range []struct{ format, golden string }{{"table", "events-follow.txt"}, {"wide", "events-follow-wide.txt"}, {"json", "events-follow.json"}, {"yaml", "events-follow.yaml"}, {"name", "events-follow.names"}} {
		t.Run(c.format, func(t *testing.T) {
			h := everything(t)
			ctx, cancel := context.WithCancel(t.Context())
			var out, errOut output
			code := make(chan int, 1)
			go func() { code <- h.hubInto(ctx, &out, &errOut, "get", "events", "-w", "-o", c.format) }()
			out.await(t, "9")
			h.mu.Lock()
			events := proto.Clone(h.say["ListEvents"]).(*fleetv1.ListEventsResponse)
			h.mu.Unlock()
			events.Events = append(events.Events, &fleetv1.FleetEvent{Id: 12, At: ago(0), Cluster: "initech-of-the-far-east/ap-1", Distribution: "shop", Version: "1.4.0", Kind: "Declined", Message: "pinned\x1b[2J at 1.1.0"})
			h.set("ListEvents", events)
			out.await(t, map[bool]string{true: "12", false: "at 1.1.0"}[c.format == "name"])
			events = proto.Clone(events).(*fleetv1.ListEventsResponse)
			events.Events = append(events.Events, &fleetv1.FleetEvent{Id: 13, At: ago(0), Distribution: "shop", Version: "1.4.0", Kind: "Rollout", Message: "completed"})
			h.set("ListEvents", events)
			out.await(t, map[bool]string{true: "13", false: "completed"}[c.format == "name"])
			cancel()
			if got := <-code; got != exitcode.OK {
				t.Errorf("exit code %d: %s", got, errOut.text.String())
			}
			golden(t, c.golden, out.text.Bytes())
		})
	}
}

// chained is an audit as a hub makes it.
func chained(n int) []*fleetv1.AuditEntry {
	var all []*fleetv1.AuditEntry
	var previous []byte
	for i := 1; i <= n; i++ {
		at := moment.Add(time.Duration(i) * time.Second)
		record, _ := json.Marshal(struct {
			Number uint64    `json:"number"`
			At     time.Time `json:"at"`
			Actor  string    `json:"actor"`
			Action string    `json:"action"`
			Object string    `json:"object,omitempty"`
			Reason string    `json:"reason,omitempty"`
		}{uint64(i), at, "operator admin", "rollout approve", "shop 1.4.0", fmt.Sprintf("change %d", i)})
		sum := sha256.Sum256(append(append([]byte{}, previous...), record...))
		all = append(all, &fleetv1.AuditEntry{Number: uint64(i), At: timestamppb.New(at), Actor: "operator admin", Action: "rollout approve", Object: "shop 1.4.0", Reason: fmt.Sprintf("change %d", i),
			Previous: previous, Hash: sum[:], Record: record})
		previous = sum[:]
	}
	return all
}

func TestTheAuditIsExportedAndVerified(t *testing.T) {
	h := serveAnswers(t, nil)
	if code, out, errOut := h.hub(t, "audit", "verify"); code != exitcode.OK || !strings.Contains(out, "empty") {
		t.Errorf("an empty audit: exit code %d: %s%s", code, out, errOut)
	}
	h.audit = chained(5)
	code, out, _ := h.hub(t, "audit", "export", "--after", "2")
	if code != exitcode.OK || strings.Count(out, "\n") != 3 {
		t.Errorf("exit code %d, want three lines:\n%s", code, out)
	}
	golden(t, "audit.jsonl", []byte(out))
	if code, out, errOut := h.hub(t, "audit", "verify"); code != exitcode.OK || !strings.Contains(out, "5 entries, whole") || !strings.Contains(out, hex.EncodeToString(h.audit[4].GetHash())) {
		t.Errorf("a whole audit: exit code %d: %s%s", code, out, errOut)
	}
	for name, c := range map[string]struct {
		break_ func([]*fleetv1.AuditEntry) []*fleetv1.AuditEntry
		want   string
	}{
		"a field that is changed":    {func(a []*fleetv1.AuditEntry) []*fleetv1.AuditEntry { a[2].Reason = "another"; return a }, "audit entry 3"},
		"a record that is changed":   {func(a []*fleetv1.AuditEntry) []*fleetv1.AuditEntry { a[1].Record[20] ^= 1; return a }, "audit entry 2"},
		"an entry that is left out":  {func(a []*fleetv1.AuditEntry) []*fleetv1.AuditEntry { return append(a[:3], a[4:]...) }, "audit entry 4 is missing"},
		"the first that is left out": {func(a []*fleetv1.AuditEntry) []*fleetv1.AuditEntry { return a[1:] }, "audit entry 1 is missing"},
		"two that change places": {func(a []*fleetv1.AuditEntry) []*fleetv1.AuditEntry {
			a[1], a[2] = a[2], a[1]
			return a
		}, "audit entry 2 is missing"},
		"one that is made anew, and does not fit the next": {func(a []*fleetv1.AuditEntry) []*fleetv1.AuditEntry {
			other := chained(5)[0]
			other.Record = []byte(strings.Replace(string(other.GetRecord()), "change 1", "change 9", 1))
			other.Reason = "change 9"
			sum := sha256.Sum256(other.GetRecord())
			other.Hash = sum[:]
			a[0] = other
			return a
		}, "audit entry 2"},
	} {
		h.audit = c.break_(chained(5))
		if code, out, errOut := h.hub(t, "audit", "verify"); code != exitcode.Failed || out != "" || !strings.Contains(errOut, c.want) {
			t.Errorf("%s: exit code %d: %s%s, want %q", name, code, out, errOut, c.want)
		}
	}
}

// many is a fleet.
func many(n int) *fleetv1.ListClustersResponse {
	r := &fleetv1.ListClustersResponse{}
	for i := range n {
		r.Clusters = append(r.Clusters, &fleetv1.Cluster{Name: fmt.Sprintf("provider-%d/cluster-%d", i/10, i%10), Labels: map[string]string{"env": "production", "ring": fmt.Sprint(i % 3)},
			Connected: true, Joined: ago(time.Hour), LastSeen: ago(time.Second), SpokeVersion: "1.0.0", KubernetesVersion: "v1.33.0",
			Subscriptions: []*syncv1.SubscriptionStatus{{Distribution: "shop", RunningVersion: "1.3.0", Phase: "Succeeded", Health: "Healthy"}}})
	}
	return r
}

func BenchmarkListClusters10000(b *testing.B) {
	answer := many(10_000)
	for b.Loop() {
		if _, err := printer.JSON(answer); err != nil {
			b.Fatal(err)
		}
	}
}
