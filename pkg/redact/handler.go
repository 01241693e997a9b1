package redact

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"
)

// Handler has every record go through the sink before h sees it.
func (s *Sink) Handler(h slog.Handler) slog.Handler { return handler{s, h} }

type handler struct {
	sink *Sink
	next slog.Handler
}

func (h handler) Enabled(ctx context.Context, l slog.Level) bool { return h.next.Enabled(ctx, l) }

func (h handler) WithGroup(name string) slog.Handler { return handler{h.sink, h.next.WithGroup(name)} }

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.sink, h.next.WithAttrs(h.attrs(attrs))}
}

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	clean := slog.NewRecord(r.Time, r.Level, h.sink.Text(r.Message), r.PC)
	r.Attrs(func(a slog.Attr) bool {
		clean.AddAttrs(h.attr(a))
		return true
	})
	return h.next.Handle(ctx, clean)
}

func (h handler) attrs(all []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, len(all))
	for i, a := range all {
		out[i] = h.attr(a)
	}
	return out
}

func (h handler) attr(a slog.Attr) slog.Attr {
	a.Key = h.sink.Text(a.Key)
	v := a.Value.Resolve()
	switch v.Kind() {
	case slog.KindString:
		a.Value = slog.StringValue(h.sink.Text(v.String()))
	case slog.KindGroup:
		a.Value = slog.GroupValue(h.attrs(v.Group())...)
	case slog.KindAny:
		a.Value = h.any(v.Any())
	default:
		a.Value = v
	}
	return a
}

// any is what is not text of itself: what would be written of it is looked at.
func (h handler) any(v any) slog.Value {
	switch v := v.(type) {
	case nil:
		return slog.AnyValue(nil)
	case error:
		return slog.StringValue(h.sink.Text(v.Error()))
	case []string:
		out := make([]string, len(v))
		for i, s := range v {
			out[i] = h.sink.Text(s)
		}
		return slog.AnyValue(out)
	case []byte:
		return slog.StringValue(h.sink.Text(string(v)))
	case time.Time, time.Duration, bool:
		return slog.AnyValue(v)
	case fmt.Stringer:
		return slog.StringValue(h.sink.Text(v.String()))
	}
	plain := fmt.Sprintf("%+v", v)
	clean := h.sink.Text(plain)
	if data, err := json.Marshal(v); err == nil && clean == plain && h.sink.Text(string(data)) == string(data) {
		return slog.AnyValue(v)
	}
	return slog.StringValue(clean)
}
