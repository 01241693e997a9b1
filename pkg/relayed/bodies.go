package relayed

import "crypto/sha256"

// What both ends of a relay's stream remember of the bodies that crossed it.
const (
	mostBodies = 64
	mostBytes  = 16 << 20
	// SharedSize is from what size on a body crosses apart from the frames that refer to it, in bytes.
	SharedSize = 512
)

// Bodies are the last that crossed a stream: as both ends forget by the same rule, the one knows what the other still
// has. It is for one goroutine at a time.
type Bodies struct {
	kept  []body
	bytes int
}

type body struct {
	sum     [sha256.Size]byte
	size    int
	content []byte // nil at the sender's
}

// Sent notes a body of this size as the newest; content is for who has to look it up.
func (b *Bodies) Sent(sum [sha256.Size]byte, size int, content []byte) {
	b.kept, b.bytes = append(b.kept, body{sum, size, content}), b.bytes+size
	for len(b.kept) > mostBodies || b.bytes > mostBytes && len(b.kept) > 1 {
		b.bytes -= b.kept[0].size
		b.kept[0] = body{}
		b.kept = b.kept[1:]
	}
}

// Find is a body that the other end still has.
func (b *Bodies) Find(sum [sha256.Size]byte) (content []byte, found bool) {
	for i := len(b.kept) - 1; i >= 0; i-- {
		if b.kept[i].sum == sum {
			return b.kept[i].content, true
		}
	}
	return nil, false
}
