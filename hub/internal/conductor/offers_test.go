package conductor

import (
	"encoding/binary"
	"hash/fnv"
	"testing"
)

// Spokes have revisions of hubs before: the same offers must have the same one, or a whole fleet is sent what it has.
func TestARevisionIsHashedAsEver(t *testing.T) {
	want, got := fnv.New64a(), offset64
	for _, name := range []string{"shop", "", "bücher"} {
		want.Write([]byte(name + "\x00"))
		got = got.text(name).text("\x00")
		for _, sum := range []uint64{0, 1, 0x0123456789abcdef, 1<<64 - 1} {
			want.Write(binary.BigEndian.AppendUint64(nil, sum))
			got = got.number(sum)
			if uint64(got) != want.Sum64() {
				t.Errorf("%s with %x: %x, want %x", name, sum, uint64(got), want.Sum64())
			}
		}
	}
}
