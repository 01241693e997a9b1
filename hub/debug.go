package hub

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
)

// listenDebug opens the port for profiles, which show what is in memory: of this machine only.
func listenDebug(addr string) (net.Listener, error) {
	const what = "listen for profiles"
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("%s: %w; want HOST:PORT in --debug", what, err)
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return nil, fmt.Errorf("%s on %s: profiles show what is in memory, and are for this machine only; name 127.0.0.1 or [::1] in --debug", what, addr)
	}
	return listen(what, addr, "--debug")
}

// serveDebug serves the runtime's profiles below /debug/pprof/ until ctx ends.
func serveDebug(ctx context.Context, l net.Listener, log *slog.Logger) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return serveHTTP(ctx, l, mux, "profiles", log)
}
