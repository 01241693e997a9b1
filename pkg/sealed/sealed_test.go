package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"testing"
)

func fill(b byte) []byte { return bytes.Repeat([]byte{b}, 32) }

func channel(t testing.TB, key, ticket, spoke, hub []byte) (up, down Direction) {
	t.Helper()
	up, down, err := Channel(key, ticket, spoke, hub)
	if err != nil {
		t.Fatal(err)
	}
	return up, down
}

func seal(t testing.TB, d *Direction, body string, last bool) []byte {
	t.Helper()
	tag, err := d.Seal(sha256.Sum256([]byte(body)), last)
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// Computed by another program (Python's hmac and hashlib) from the docs: both ends of the wire have to agree for ever.
func TestVectors(t *testing.T) {
	up, down := channel(t, fill(1), []byte("ticket"), fill(2), fill(3))
	for _, v := range []struct {
		d    *Direction
		body string
		last bool
		want string
	}{
		{&up, "hello", false, "218fbf77d1713628558aa3a2354df1c1bf195c5eefa5a49a97599347f963f7bc"},
		{&up, "", false, "cc4d40ae27ce2334f6986c0fc342845ff3fcc713fc73b43025ee842170141215"},
		{&down, "welcome", false, "97a3f117a1ea005c86fe7bcd39ebacd155fa5e7a734265b206481a215f6c1ac0"},
		{&down, "over", true, "16664db165370e6f363c62336c2b78ee24c1dac493504c0bb717f7043574c1cd"},
	} {
		if got := hex.EncodeToString(seal(t, v.d, v.body, v.last)); got != v.want {
			t.Errorf("%q: got %s, want %s", v.body, got, v.want)
		}
	}
}

func TestWhatWasSaidIsTaken(t *testing.T) {
	up, down := channel(t, fill(1), []byte("ticket"), fill(2), fill(3))
	hubUp, spokeDown := up, down
	for _, body := range []string{"hello", "", "hello"} {
		if err := hubUp.Open([]byte(body), seal(t, &up, body, false), false); err != nil {
			t.Fatal(err)
		}
		if err := spokeDown.Open([]byte(body), seal(t, &down, body, false), false); err != nil {
			t.Fatal(err)
		}
	}
	if err := spokeDown.Open([]byte("over"), seal(t, &down, "over", true), true); err != nil {
		t.Fatal(err)
	}
	if _, err := down.Seal([32]byte{}, false); err == nil {
		t.Error("something was said after the last message")
	}
}

// Each is done to the second of three messages that a spoke says.
func TestWhatWasNotSaidNextIsForged(t *testing.T) {
	type message struct {
		body string
		tag  []byte
		last bool
	}
	other := func(key, ticket, spoke, hub []byte, down bool) message {
		up, back := channel(t, key, ticket, spoke, hub)
		d := &up
		if down {
			d = &back
		}
		seal(t, d, "one", false)
		return message{"two", seal(t, d, "two", false), false}
	}
	for name, forge := range map[string]func(said []message) message{
		"altered":                       func(s []message) message { s[1].body = "twp"; return s[1] },
		"longer":                        func(s []message) message { s[1].body += "\x00"; return s[1] },
		"emptied":                       func(s []message) message { s[1].body = ""; return s[1] },
		"repeated":                      func(s []message) message { return s[0] },
		"left out":                      func(s []message) message { return s[2] },
		"called the last":               func(s []message) message { s[1].last = true; return s[1] },
		"another's tag":                 func(s []message) message { s[1].tag = s[0].tag; return s[1] },
		"a shorter tag":                 func(s []message) message { s[1].tag = s[1].tag[:16]; return s[1] },
		"no tag":                        func(s []message) message { s[1].tag = nil; return s[1] },
		"of another key":                func([]message) message { return other(fill(9), []byte("ticket"), fill(2), fill(3), false) },
		"of another ticket":             func([]message) message { return other(fill(1), []byte("other"), fill(2), fill(3), false) },
		"of another channel's spoke":    func([]message) message { return other(fill(1), []byte("ticket"), fill(9), fill(3), false) },
		"of another channel's hub":      func([]message) message { return other(fill(1), []byte("ticket"), fill(2), fill(9), false) },
		"of exchanged nonces":           func([]message) message { return other(fill(1), []byte("ticket"), fill(3), fill(2), false) },
		"of the other direction":        func([]message) message { return other(fill(1), []byte("ticket"), fill(2), fill(3), true) },
		"a tag that anybody can make":   func(s []message) message { sum := sha256.Sum256([]byte("two")); s[1].tag = sum[:]; return s[1] },
		"the tag with its bits flipped": func(s []message) message { s[1].tag = slices.Clone(s[1].tag); s[1].tag[31] ^= 1; return s[1] },
	} {
		t.Run(name, func(t *testing.T) {
			up, _ := channel(t, fill(1), []byte("ticket"), fill(2), fill(3))
			hub := up
			var said []message
			for _, body := range []string{"one", "two", "three"} {
				said = append(said, message{body, seal(t, &up, body, false), false})
			}
			if err := hub.Open([]byte(said[0].body), said[0].tag, false); err != nil {
				t.Fatal(err)
			}
			genuine := said[1]
			m := forge(said)
			if err := hub.Open([]byte(m.body), m.tag, m.last); !errors.Is(err, ErrForged) {
				t.Fatalf("taken: %v", err)
			}
			if err := hub.Open([]byte(genuine.body), genuine.tag, genuine.last); !errors.Is(err, ErrForged) {
				t.Error("a channel goes on after a forgery")
			}
		})
	}
}

func TestADirectionWithoutAKeyProvesNothing(t *testing.T) {
	var d Direction
	if _, err := d.Seal([32]byte{}, false); err == nil {
		t.Error("sealed")
	}
	zero := Direction{state: open}
	if err := d.Open(nil, zero.tag(sha256.Sum256(nil), false), false); !errors.Is(err, ErrForged) {
		t.Errorf("opened: %v", err)
	}
	for _, sizes := range [][3]int{{31, 32, 32}, {32, 0, 32}, {32, 32, 33}, {0, 0, 0}} {
		if _, _, err := Channel(make([]byte, sizes[0]), nil, make([]byte, sizes[1]), make([]byte, sizes[2])); err == nil {
			t.Errorf("%v: keys were made", sizes)
		}
	}
}

// Nothing but the next genuine message is ever taken.
func FuzzOpen(f *testing.F) {
	f.Add([]byte("two"), fill(7), false)
	f.Add([]byte(""), []byte{}, true)
	f.Fuzz(func(t *testing.T, body, tag []byte, last bool) {
		up, _ := channel(t, fill(1), []byte("ticket"), fill(2), fill(3))
		hub := up
		want := seal(t, &up, string(body), last)
		err := hub.Open(body, tag, last)
		if taken := err == nil; taken != bytes.Equal(tag, want) {
			t.Errorf("body %q, tag %x, last %v: %v", body, tag, last, err)
		}
	})
}
