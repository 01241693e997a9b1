package ending_test

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/ending"
)

type name struct{}

func TestTheFirstEndIsTheAnswer(t *testing.T) {
	first := status.Error(codes.Unauthenticated, "removed")
	outer := ending.With(context.WithValue(t.Context(), name{}, "eu-1"))
	inner := context.WithValue(outer, name{}, "eu-2")
	if _, ended := ending.Answer(inner); ended || outer.Err() != nil || outer.Value(name{}) != "eu-1" {
		t.Fatal("it has ended before it began")
	}
	ending.End(inner, first)
	ending.End(outer, errors.New("stopping"))
	if err, ended := ending.Answer(inner); !ended || !errors.Is(err, first) || inner.Err() == nil {
		t.Errorf("it ended with %v, %v", err, ended)
	}
}

func TestACallThatIsDoneHasNoError(t *testing.T) {
	ctx := ending.With(t.Context())
	ending.End(ctx, nil)
	if err, ended := ending.Answer(ctx); !ended || err != nil || ctx.Err() == nil {
		t.Errorf("it ended with %v, %v", err, ended)
	}
}

func TestWhatEndsByItselfHasNoAnswer(t *testing.T) {
	parent, cancel := context.WithCancel(t.Context())
	ctx := ending.With(parent)
	cancel()
	if _, ended := ending.Answer(ctx); ended || ctx.Err() == nil {
		t.Error("somebody is said to have ended it")
	}
}
