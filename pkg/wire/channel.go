package wire

import (
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// mostSigners are read of one installation.
const mostSigners = 16

// Channel makes the message of a vendor's statement; nil of none.
func Channel(c *fleet.Channel) *syncv1.Channel {
	if c == nil {
		return nil
	}
	return &syncv1.Channel{Sequence: c.Sequence, Latest: c.Latest, Issued: Time(c.Issued), Expires: Time(c.Expires)}
}

// FromChannel reads the message of a vendor's statement; nil of none.
func FromChannel(m *syncv1.Channel) *fleet.Channel {
	if m == nil {
		return nil
	}
	return &fleet.Channel{Sequence: m.GetSequence(), Latest: m.GetLatest(), Issued: FromTime(m.GetIssued()), Expires: FromTime(m.GetExpires())}
}
