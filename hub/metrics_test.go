package hub

import (
	"io"
	"net/http"
	"strings"
	"testing"

	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

func TestMetrics(t *testing.T) {
	v := newVendor(t)
	v.tag(t, "1.0.0", "example.com/backend:1.0.0")
	hub := start(t, Config{Dir: t.TempDir(), Metrics: "127.0.0.1:0"})
	if _, err := hub.fleet.AddDistribution(t.Context(), &fleetv1.AddDistributionRequest{Distribution: &fleetv1.Distribution{Name: "shop", Url: v.dir, IntervalSeconds: 1}}); err != nil {
		t.Fatal(err)
	}
	hub.release(t, "1.0.0")
	spoke := hub.dial(t, hub.enrol(t, "acme/eu-1"))
	stream, _ := spoke.connect(t, 0)
	hear(t, stream)
	say(t, stream, settled(1, "1.0.0"))
	hear(t, stream)

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	get := func(path string) string {
		t.Helper()
		resp, err := client.Get("http://" + hub.Metrics + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: %s, %v\n%s", path, resp.Status, err, body)
		}
		return string(body)
	}
	text := get("/metrics")
	for _, want := range []string{
		"wheelwright_hub_clusters 1\n", "wheelwright_hub_spokes_connected 1\n", "wheelwright_hub_identities_unserved{standing=\"Quarantined\"} 0\n", "wheelwright_hub_events_received_total 1\n", "wheelwright_hub_offers_sent_total 1\n",
		`wheelwright_hub_bundle_sent_bytes_total{encoding="delta"} 0` + "\n", "wheelwright_hub_deltas_built_total 0\n", "wheelwright_hub_bundle_fetches_waiting 0\n",
		"wheelwright_hub_store_failing 0\n", "wheelwright_hub_store_write_failures_total 0\n", "\nwheelwright_hub_store_writes_total ", "\nwheelwright_hub_store_bytes ",
		`wheelwright_hub_releases{distribution="shop",phase="Available"} 1` + "\n", `wheelwright_hub_installations{distribution="shop",phase="Succeeded"} 1` + "\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in:\n%s", want, text)
		}
	}
	get("/healthz")
	get("/readyz")
}
