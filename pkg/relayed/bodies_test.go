package relayed

import (
	"crypto/sha256"
	"math/rand/v2"
	"testing"
)

// Both ends forget the same, however much crosses.
func TestWhatOneEndRemembersTheOtherHas(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	var sender, receiver Bodies
	resent := 0
	for n := range 1000 {
		which := random.IntN(100)
		content := make([]byte, SharedSize+which*9999) // the same for the same
		content[0] = byte(which)
		sum := sha256.Sum256(content)
		if _, has := sender.Find(sum); !has {
			sender.Sent(sum, len(content), nil)
			receiver.Sent(sum, len(content), content)
			resent++
		}
		got, found := receiver.Find(sum)
		if !found || sha256.Sum256(got) != sum {
			t.Fatalf("body %d of %d bytes is not there", n, len(content))
		}
		if len(receiver.kept) > mostBodies || receiver.bytes > mostBytes || len(receiver.kept) != len(sender.kept) || receiver.bytes != sender.bytes {
			t.Fatalf("%d bodies of %d bytes, the sender counts %d of %d", len(receiver.kept), receiver.bytes, len(sender.kept), sender.bytes)
		}
	}
	if resent < 101 {
		t.Errorf("nothing was forgotten: %d crossed", resent)
	}
}
