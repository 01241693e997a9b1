package identity

import (
	"errors"
	"fmt"
	"os"
	"time"
)

var (
	// ErrRotating: there is a new key beside the old one already.
	ErrRotating = errors.New("the authority is being rotated")
	// ErrNotRotating: there is one key only.
	ErrNotRotating = errors.New("the authority is not being rotated")
)

// Root is one key of the authority, for people.
type Root struct {
	Pin                 string // SHA-256 of the public key, 64 hexadecimal digits
	Name                string // its certificate's subject
	NotBefore, NotAfter time.Time
	Shown               bool // the hub shows itself under it
	Issues              bool // certificates are issued under it
}

// Roots lists them, the oldest first.
func (a *Authority) Roots() []Root {
	shown, issuing := a.shown(), a.issuing()
	a.mu.RLock()
	defer a.mu.RUnlock()
	var all []Root
	for _, r := range a.roots {
		all = append(all, Root{Pin: r.pin(), Name: r.cert.Subject.CommonName, NotBefore: r.cert.NotBefore, NotAfter: r.cert.NotAfter, Shown: r == shown, Issues: r == issuing})
	}
	return all
}

// Rotate makes a new key beside the one that there is. From then on certificates are issued under it, and who
// gets one is told to trust both; the hub still shows itself under the old one. ErrRotating where there are two.
func (a *Authority) Rotate() (pin string, err error) {
	next, err := selfSigned()
	if err != nil {
		return "", fmt.Errorf("rotate the authority: %w", err)
	}
	return next.pin(), a.replace(func(have []root) ([]root, error) {
		if len(have) > 1 {
			return nil, ErrRotating
		}
		return []root{have[0], next}, nil
	})
}

// Retire ends the old key: the hub shows itself under the new one, and certificates of the old one are refused.
// It is for the caller to know that nobody needs it any more. ErrNotRotating where there is one only.
func (a *Authority) Retire() error {
	return a.replace(func(have []root) ([]root, error) {
		if len(have) < 2 {
			return nil, ErrNotRotating
		}
		return have[len(have)-1:], nil
	})
}

// replace has the file on disk before anything follows from it.
func (a *Authority) replace(change func([]root) ([]root, error)) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	next, err := change(a.roots)
	if err != nil {
		return err
	}
	if err := write(a.dir, next, os.Rename); err != nil {
		return fmt.Errorf("write the authority: %w", err)
	}
	a.set(next)
	return nil
}
