package fleetapi

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/caller"
	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// Messages name the cause, the object and the next command to type.

func invalid(format string, args ...any) error {
	return status.Error(codes.InvalidArgument, fmt.Sprintf(format, args...))
}

func noDistribution(name string) error {
	return status.Errorf(codes.NotFound, "no distribution %s; `hub get distributions` lists them", name)
}

func noRelease(distribution, version string) error {
	return status.Errorf(codes.NotFound, "distribution %s has no release %s; `hub get releases %s` lists them", distribution, version, distribution)
}

func noCluster(name fleet.Cluster) error {
	return status.Errorf(codes.NotFound, "no cluster %s; `hub get clusters` lists them", name)
}

func distributionExists(name string) error {
	return status.Errorf(codes.AlreadyExists, "distribution %s exists; choose another name, or `hub distribution remove %s` first (its releases stay)", name, name)
}

// refused gives the conductor's answer a code, and its own trouble the code of a failure. What the
// conductor says is whole: cause, object and next command.
func (s *Service) refused(doing string, err error) error {
	for _, r := range []struct {
		why  error
		code codes.Code
	}{
		{caller.ErrNotFound, codes.NotFound},
		{caller.ErrExists, codes.AlreadyExists},
		{caller.ErrInvalid, codes.InvalidArgument},
		{caller.ErrConflict, codes.FailedPrecondition},
		{caller.ErrDenied, codes.PermissionDenied},
	} {
		if errors.Is(err, r.why) {
			// The kind of refusal is the code; as text it would only repeat the sentence.
			return status.Error(r.code, strings.TrimSuffix(err.Error(), ": "+r.why.Error()))
		}
	}
	return s.failure(doing, err)
}

// failure is for the hub's own trouble.
func (s *Service) failure(doing string, err error) error {
	s.cfg.Log.Error("operator not answered", slog.String(logging.Reason, doing), slog.Any(logging.Error, err))
	code := codes.Internal
	if errors.Is(err, store.ErrCorrupt) {
		code = codes.DataLoss
	}
	return status.Errorf(code, "%s: %v; the hub's log has more", doing, err)
}

// unreadable says why a repository cannot become a distribution. gitrepo's errors name the repository,
// the cause and, where one helps, the git command that shows more.
func unreadable(d fleet.Distribution, err error) error {
	next := fmt.Sprintf("; then `hub distribution add %s --git %s` again", d.Name, d.URL)
	switch {
	case errors.Is(err, gitrepo.ErrEmpty):
		next = "; push a commit and a tag" + next
	case errors.Is(err, gitrepo.ErrTooLarge), errors.Is(err, gitrepo.ErrUnsupported), errors.Is(err, gitrepo.ErrNotFound):
		next = "; correct --git" // it will not get better by itself
	}
	return status.Errorf(codes.FailedPrecondition, "distribution %s: %v%s", d.Name, err, next)
}
