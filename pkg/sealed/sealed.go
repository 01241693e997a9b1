// Package sealed proves what two ends say to each other over somebody who carries it. Both have a secret key that the
// carrier has not; each channel has keys of its own, one for each direction, and each message a tag over its number and
// its content. Whoever carries them can drop them, or hold them back, and is found out at anything else: a message that
// was altered, made up, repeated, left out, taken out of its order, or brought over from another channel or from the
// other direction.
//
// It hides nothing: a body is plain to who carries it. It holds no connection, and keeps no clock.
package sealed

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
)

// Sizes, in bytes.
const (
	KeySize   = 32
	NonceSize = 32
	TagSize   = sha256.Size
)

// ErrForged: a message is not what the other end said next. Nothing that comes after it counts.
var ErrForged = errors.New("a message was altered, made up, repeated or left out on its way")

// Direction is one way of a channel, for the one end that speaks or the one that listens. The zero Direction proves
// nothing. It is for one goroutine at a time.
type Direction struct {
	key   [KeySize]byte
	next  uint64 // number of the next message
	state state
}

type state uint8

const (
	unkeyed state = iota
	open
	ended  // its last message was said
	broken // something was forged
)

// Channel derives the two directions of a channel: HKDF-SHA256 (RFC 5869) of the secret key, with both nonces as salt
// and the direction's name, the SHA-256 of the ticket after it, as info. ticket is what the key was given out with: it
// names the identity that it was given to.
func Channel(key, ticket, spoke, hub []byte) (up, down Direction, err error) {
	if len(key) != KeySize || len(spoke) != NonceSize || len(hub) != NonceSize {
		return up, down, fmt.Errorf("channel keys: a key of %d bytes and nonces of %d and %d, want %d and %d", len(key), len(spoke), len(hub), KeySize, NonceSize)
	}
	salt := append(append(make([]byte, 0, 2*NonceSize), spoke...), hub...)
	about := sha256.Sum256(ticket)
	for _, d := range []struct {
		name string
		to   *Direction
	}{{"wheelwright channel, spoke to hub\x00", &up}, {"wheelwright channel, hub to spoke\x00", &down}} {
		k, err := hkdf.Key(sha256.New, key, salt, d.name+string(about[:]), KeySize)
		if err != nil {
			return up, down, fmt.Errorf("channel keys: %w", err)
		}
		copy(d.to.key[:], k)
		d.to.state = open
	}
	return up, down, nil
}

// Seal is the tag of the direction's next message, of which sum is the SHA-256: HMAC-SHA256 over the message's number
// (8 bytes, big-endian, from 0), a byte that is 1 for the last message and 0 for others, and sum. Nothing is sealed
// after the last.
func (d *Direction) Seal(sum [sha256.Size]byte, last bool) ([]byte, error) {
	if d.state != open {
		return nil, errors.New("seal a message: the channel is over")
	}
	tag := d.tag(sum, last)
	d.said(last)
	return tag, nil
}

// Open checks the tag of what is to be the direction's next message. After ErrForged everything is.
func (d *Direction) Open(body, tag []byte, last bool) error {
	if d.state != open || !hmac.Equal(tag, d.tag(sha256.Sum256(body), last)) {
		d.state = broken
		return ErrForged
	}
	d.said(last)
	return nil
}

func (d *Direction) said(last bool) {
	if d.next++; last {
		d.state = ended
	}
}

func (d *Direction) tag(sum [sha256.Size]byte, last bool) []byte {
	var said [9 + sha256.Size]byte
	binary.BigEndian.PutUint64(said[:], d.next)
	if last {
		said[8] = 1
	}
	copy(said[9:], sum[:])
	mac := hmac.New(sha256.New, d.key[:])
	_, _ = mac.Write(said[:]) // never fails
	return mac.Sum(nil)
}
