package conductor

import (
	"fmt"

	"github.com/wheelwright-dev/wheelwright/hub/internal/store"
)

// Status words of clusters whose identity is not served.
const (
	awaitingAcceptance = "AwaitingAcceptance(vendor)"
	quarantined        = "Quarantined"
	turnedAway         = "Rejected(vendor)"
)

// unserved says in the row that the hub does not serve the cluster's identity, if it does not: whatever it ran
// when it was last heard is old news.
func (c *ClusterNews) unserved(r *row) bool {
	switch c.Standing {
	case store.Pending:
		r.phase, r.attention = awaitingAcceptance, true
		r.reason = fmt.Sprintf("its spoke joined: compare its key with the provider, then `hub cluster accept %s --fingerprint %s`", c.Name, c.Key)
	case store.Quarantined:
		r.phase, r.attention = quarantined, true
		r.reason = fmt.Sprintf("%s; `hub cluster invite %s` for the right one, or `hub cluster accept %s`", c.StandingWhy, c.Name, c.Name)
	case store.Rejected:
		r.phase = turnedAway
		r.reason = fmt.Sprintf("its identity was turned away: %s; `hub cluster invite %s` prints the line to join with again", c.StandingWhy, c.Name)
	default:
		return false
	}
	return true
}
