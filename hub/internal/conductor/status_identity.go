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

// unserved is the status word of a cluster whose identity the hub does not serve, and why. It tells nothing of what
// the cluster ran when it was last heard: that is old news.
func (c *ClusterNews) unserved() (word, why string) {
	switch c.Standing {
	case store.Pending:
		return awaitingAcceptance, fmt.Sprintf("its spoke joined: compare its key with the provider, then `hub cluster accept %s --fingerprint %s`", c.Name, c.Key)
	case store.Quarantined:
		return quarantined, fmt.Sprintf("%s; `hub cluster invite %s` for the right one, or `hub cluster accept %s`", c.StandingWhy, c.Name, c.Name)
	}
	return turnedAway, fmt.Sprintf("its identity was turned away: %s; `hub cluster invite %s` prints the line to join with again", c.StandingWhy, c.Name)
}
