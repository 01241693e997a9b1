// Package logging makes the one kind of logger that both binaries use and lists the attribute keys,
// so that a log can be searched by the same words everywhere. It holds no global logger.
package logging

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
)

// Attribute keys.
const (
	Cluster      = "cluster"
	Distribution = "distribution"
	Version      = "version"
	Digest       = "digest"
	Phase        = "phase"
	Reason       = "reason"
	Error        = "error"
	Address      = "address"
	Path         = "path"
	URL          = "url"
	Count        = "count"
	Duration     = "duration"
	Method       = "method"
	Revision     = "revision"
	Object       = "object"
	Plugin       = "plugin"
	Relay        = "relay"
)

// New makes a logger that writes to w. level: debug, info, warn, error. format: text, json.
func New(w io.Writer, level, format string) (*slog.Logger, error) {
	var l slog.Level
	if err := l.UnmarshalText([]byte(level)); err != nil {
		return nil, fmt.Errorf("log level %q: want debug, info, warn or error", level)
	}
	o := &slog.HandlerOptions{Level: l}
	switch strings.ToLower(format) {
	case "text":
		return slog.New(slog.NewTextHandler(w, o)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, o)), nil
	}
	return nil, fmt.Errorf("log format %q: want text or json", format)
}
