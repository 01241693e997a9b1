package hub

import (
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
)

// Profiles are served where they are asked for, and on this machine only.
func TestProfilesAreForThisMachine(t *testing.T) {
	for _, addr := range []string{":6060", "0.0.0.0:6060", "192.0.2.1:6060", "example.com:6060", "6060"} {
		err := Run(t.Context(), Config{Dir: t.TempDir(), Listen: "127.0.0.1:0", Debug: addr, Log: slog.New(slog.DiscardHandler)}, func(Info) { t.Errorf("--debug %s is served", addr) })
		if err == nil || !strings.Contains(err.Error(), "--debug") {
			t.Errorf("--debug %s: %v", addr, err)
		}
	}
	hub := start(t, Config{Dir: t.TempDir(), Debug: "127.0.0.1:0"})
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + hub.Debug + "/debug/pprof/heap?gc=1&debug=1")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), "# HeapAlloc = ") {
		t.Errorf("%s, %v\n%s", resp.Status, err, body)
	}
}
