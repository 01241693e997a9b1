// Package ending ends streams from outside, with an answer, so that whatever waits in one, for a message or for its
// reader, waits no longer.
package ending

import (
	"context"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

type key struct{}

// endable is a context that End ends.
type endable struct {
	context.Context
	end    func(*status.Status)
	answer atomic.Pointer[status.Status]
}

func (e *endable) Value(k any) any {
	if k == (key{}) {
		return e
	}
	return e.Context.Value(k)
}

// With is a context that End ends, and that ends with ctx.
func With(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	return &endable{Context: ctx, end: func(*status.Status) { cancel() }}
}

// Stream is the context of a stream of a grpc server's. Ending it says so to the client, and ends the stream: its
// handler returns then, with whatever.
func Stream(ctx context.Context) context.Context {
	// A handler cannot be kept from waiting in Recv but by the end of its stream, for which grpc has no other way from
	// outside.
	s := grpc.ServerTransportStreamFromContext(ctx).(interface{ WriteStatus(*status.Status) error })
	return &endable{Context: ctx, end: func(st *status.Status) { _ = s.WriteStatus(st) }} // an error: it has ended
}

// End ends ctx, or the context of which it comes that With or Stream made. err is the answer to its caller, as a
// status; nil for what is done. Of several the first counts.
func End(ctx context.Context, err error) {
	e, st := ctx.Value(key{}).(*endable), new(status.Status) // of what is done
	if err != nil {
		st = status.Convert(err)
	}
	if e.answer.CompareAndSwap(nil, st) {
		e.end(st)
	}
}

// Answer is what End was told; false where the context lives, or ended by itself.
func Answer(ctx context.Context) (err error, ended bool) {
	e, ok := ctx.Value(key{}).(*endable)
	if !ok {
		return nil, false
	}
	st := e.answer.Load()
	return st.Err(), st != nil
}
