package server

import (
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// refusal tells a spoke that the hub knows why it is not served: in words, and in a detail for its program.
func refusal(id store.Identity, key fleet.Fingerprint) error {
	detail := &syncv1.Refusal{Fingerprint: key.String()}
	var st *status.Status
	switch {
	case id.Standing == store.Pending:
		detail.Kind = syncv1.RefusalKind_REFUSAL_KIND_PENDING
		st = status.Newf(codes.PermissionDenied, "%s waits for the vendor to accept it: tell them its fingerprint, %s, which they compare and accept with `hub cluster accept %s`", id.Cluster, key, id.Cluster)
	case id.Standing == store.Quarantined:
		detail.Kind = syncv1.RefusalKind_REFUSAL_KIND_QUARANTINED
		st = status.Newf(codes.PermissionDenied, "%s is in quarantine: %s; stop the copy, then ask the vendor for `hub cluster invite %s` and run `spoke join … --force`", id.Cluster, id.Why, id.Cluster)
	case id.Standing != store.Accepted:
		st = status.Newf(codes.PermissionDenied, "%s was turned away by the vendor; ask for `hub cluster invite %s`", id.Cluster, id.Cluster)
	default:
		detail.Kind = syncv1.RefusalKind_REFUSAL_KIND_SUPERSEDED
		st = status.Newf(codes.PermissionDenied, "a newer certificate of %s is in use: connect with that one", id.Cluster)
	}
	if with, err := st.WithDetails(detail); err == nil { // it fails for codes.OK only
		st = with
	}
	return st.Err()
}
