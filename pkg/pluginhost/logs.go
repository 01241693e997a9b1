package pluginhost

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of a plugin's log: what is over them is dropped, and that is said.
const (
	maxLogLine  = 8 << 10
	logBurst    = 256 << 10 // bytes at once
	logRate     = 16 << 10  // bytes per second
	maxLogField = 512
	maxFields   = 16
)

// logs takes what a plugin writes, line by line, into its host's log. It never blocks and never fails:
// a plugin that writes a lot loses lines, not its host's memory or disk. Several streams may write.
type logs struct {
	log *slog.Logger
	now func() time.Time

	mu      sync.Mutex
	credit  float64 // bytes that may be logged now
	at      time.Time
	dropped int64
	newest  string
}

func newLogs(log *slog.Logger, now func() time.Time) *logs {
	return &logs{log: log, now: now, credit: logBurst, at: now()}
}

// stream is one of the process's streams; each has its own unfinished line.
func (l *logs) stream(name string) *logStream { return &logStream{logs: l, name: name} }

type logStream struct {
	logs *logs
	name string
	line []byte
	cut  int // bytes of the line that were over the bound
}

func (s *logStream) Write(p []byte) (int, error) {
	n := len(p)
	for len(p) > 0 {
		end := bytes.IndexByte(p, '\n')
		part := p
		if end >= 0 {
			part = p[:end]
		}
		keep := min(len(part), maxLogLine-len(s.line))
		s.line = append(s.line, part[:keep]...)
		s.cut += len(part) - keep
		if end < 0 {
			break
		}
		s.Flush()
		p = p[end+1:]
	}
	return n, nil
}

// Flush takes what was written since the last newline for a line.
func (s *logStream) Flush() {
	if len(s.line) > 0 {
		s.logs.add(s.name, s.line, s.cut)
	}
	s.line, s.cut = s.line[:0], 0
}

func (l *logs) add(stream string, line []byte, cut int) {
	if !l.afford(len(line) + cut) {
		return
	}
	level, message, attrs := readLine(bytes.TrimRight(line, "\r"))
	l.mu.Lock()
	l.newest = message
	l.mu.Unlock()
	attrs = append([]slog.Attr{slog.String("line", message), slog.String("stream", stream)}, attrs...)
	if cut > 0 {
		attrs = append(attrs, slog.Int("cut", cut))
	}
	l.log.LogAttrs(context.Background(), level, "plugin says", attrs...)
}

// afford takes n bytes from the credit, and tells once when there are not enough.
func (l *logs) afford(n int) bool {
	l.mu.Lock()
	now := l.now()
	l.credit = min(logBurst, l.credit+now.Sub(l.at).Seconds()*logRate)
	l.at = now
	first := false
	ok := l.credit >= float64(n)
	if ok {
		l.credit -= float64(n)
	} else {
		first = l.dropped == 0
		l.dropped += int64(n)
	}
	l.mu.Unlock()
	if first {
		l.log.Warn("plugin writes more log than is kept: what is over is dropped", "bytes_per_second", logRate)
	}
	return ok
}

// close says how much was dropped.
func (l *logs) close() {
	l.mu.Lock()
	dropped := l.dropped
	l.mu.Unlock()
	if dropped > 0 {
		l.log.Warn("plugin's log was cut", "dropped_bytes", dropped)
	}
}

// last is the newest line's message.
func (l *logs) last() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return printable(l.newest, 400)
}

// readLine understands a JSON object with a level and a message under the keys that slog, hclog, zap and
// Python's loggers use; anything else is a message of its own.
func readLine(line []byte) (slog.Level, string, []slog.Attr) {
	var fields map[string]any
	if len(line) == 0 || line[0] != '{' || json.Unmarshal(line, &fields) != nil {
		return slog.LevelInfo, printable(string(line), maxLogLine), nil
	}
	level, message := slog.LevelInfo, ""
	for _, key := range []string{"level", "@level", "severity", "levelname"} {
		if text, ok := fields[key].(string); ok {
			level = levelOf(text)
			delete(fields, key)
		}
	}
	for _, key := range []string{"msg", "@message", "message"} {
		if text, ok := fields[key].(string); ok && message == "" {
			message = text
			delete(fields, key)
		}
	}
	for _, key := range []string{"time", "@timestamp", "timestamp", "ts"} {
		delete(fields, key) // the host's own clock is in the line
	}
	var attrs []any
	for _, key := range slices.Sorted(maps.Keys(fields)) {
		if len(attrs) == maxFields {
			break
		}
		text, ok := fields[key].(string)
		if !ok {
			raw, _ := json.Marshal(fields[key])
			text = string(raw)
		}
		attrs = append(attrs, slog.String(printable(key, maxName), printable(text, maxLogField)))
	}
	if len(attrs) == 0 {
		return level, printable(message, maxLogLine), nil
	}
	return level, printable(message, maxLogLine), []slog.Attr{slog.Group("fields", attrs...)}
}

func levelOf(text string) slog.Level {
	switch strings.ToLower(text) {
	case "trace", "debug":
		return slog.LevelDebug
	case "warn", "warning":
		return slog.LevelWarn
	case "error", "critical", "fatal", "panic", "dpanic":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// printable is s with control characters escaped and at most most bytes of it: a plugin's text reaches
// terminals and log files.
func printable(s string, most int) string {
	over := len(s) > most
	if over {
		s = s[:most]
	}
	var b strings.Builder
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			if over && len(s)-i < utf8.UTFMax {
				i = len(s) // a character that the bound cut in two
				continue
			}
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteByte(' ')
		case !unicode.IsPrint(r):
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
		i += n
	}
	if over {
		b.WriteString("…")
	}
	return b.String()
}

// tailOf is the end of a text of several lines, made printable line by line.
func tailOf(s string, most int) string {
	if len(s) > most {
		s = s[len(s)-most:]
	}
	lines := strings.Split(s, "\n")
	for i, line := range lines {
		lines[i] = printable(line, most)
	}
	return strings.Join(lines, "\n")
}
