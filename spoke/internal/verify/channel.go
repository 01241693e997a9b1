package verify

import (
	"fmt"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

// Statement reads a vendor's statement about a distribution and checks who signed it. An error that is not
// ErrUnproven is about the provider's own files.
func Statement(raw []byte, distribution string, s Signers, now time.Time) (channel.Signed, error) {
	policy, err := s.policy(signer.Channel)
	if err != nil {
		return channel.Signed{}, err
	}
	signed, err := channel.Parse(raw)
	if err != nil {
		return channel.Signed{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	if _, err := signed.Verify(distribution, policy, now); err != nil {
		return channel.Signed{}, fmt.Errorf("%w: %w", ErrUnproven, err)
	}
	return signed, nil
}
