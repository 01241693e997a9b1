package store

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// bucketNotices is made with the first notifier, and goes when there is none any more. In it are three:
const bucketNotices = "notices"

var (
	noticesNoted   = []byte("noted")   // big-endian rollout id -> notedRecord
	noticesWaiting = []byte("waiting") // notifier NUL big-endian number -> noticeRecord
	noticesTold    = []byte("told")    // notifier NUL distribution NUL version -> toldRecord
)

type notedRecord struct {
	Phase string    `json:"phase"`
	Since time.Time `json:"since"`
}

type noticeRecord struct {
	Rollout      uint64    `json:"rollout"`
	Distribution string    `json:"distribution"`
	Version      string    `json:"version"`
	Phase        string    `json:"phase"`
	Since        time.Time `json:"since"`
	Text         string    `json:"text,omitempty"`
}

type toldRecord struct {
	Sum   string `json:"sum"`
	State string `json:"state"`
}

// Transition is a phase that a rollout reached.
type Transition struct {
	Rollout               uint64
	Distribution, Version string
	Phase                 fleet.RolloutPhase
	Since                 time.Time
	Text                  string // for a person
}

// Notice is a transition that a notifier has to be told of.
type Notice struct {
	Notifier string
	Number   uint64 // ascending
	Transition
}

// ReleaseName is a release by its names.
type ReleaseName struct{ Distribution, Version string }

// Told is what a notifier was told last of a release; empty: it is to be told, and was not yet.
type Told struct {
	Sum   string // fingerprint of all that was said
	State fleet.Mark
}

// Noted are the last transitions that notices were made of, by rollout, and whether notices were ever made.
func (s *Store) Noted() (all map[uint64]Transition, ever bool, err error) {
	all = map[uint64]Transition{}
	err = s.viewNotices(noticesNoted, func(b *bolt.Bucket) error {
		ever = true
		return each(b, func(k string, r notedRecord) error {
			id := numberOf(k)
			all[id] = Transition{Rollout: id, Phase: fleet.RolloutPhase(r.Phase), Since: r.Since}
			return nil
		})
	})
	return all, ever, err
}

// Note remembers that notices were made of transitions, forgets rollouts that are gone, and puts one notice
// of each of news before each of the notifiers. It returns them with their numbers.
func (s *Store) Note(transitions []Transition, gone []uint64, news []Transition, notifiers []string) (notices []Notice, err error) {
	err = s.updateNotices(func(root *bolt.Bucket) error {
		notices = nil // a batch may run this again
		noted, waiting := root.Bucket(noticesNoted), root.Bucket(noticesWaiting)
		for _, id := range gone {
			if err := noted.Delete(number(id)); err != nil {
				return fmt.Errorf("forget rollout %d: %w", id, err)
			}
		}
		for _, t := range transitions {
			if err := put(noted, number(t.Rollout), notedRecord{Phase: string(t.Phase), Since: utc(t.Since)}); err != nil {
				return fmt.Errorf("note rollout %d: %w", t.Rollout, err)
			}
		}
		for _, t := range news {
			for _, name := range notifiers {
				n, err := waiting.NextSequence()
				if err != nil {
					return fmt.Errorf("next notice: %w", err)
				}
				rec := noticeRecord{Rollout: t.Rollout, Distribution: t.Distribution, Version: t.Version, Phase: string(t.Phase), Since: utc(t.Since), Text: t.Text}
				if err := put(waiting, join(name, string(number(n))), rec); err != nil {
					return fmt.Errorf("notice for %s: %w", name, err)
				}
				notices = append(notices, Notice{Notifier: name, Number: n, Transition: t})
			}
		}
		return nil
	})
	return notices, err
}

// Notices are those that a notifier was not told of yet, ascending.
func (s *Store) Notices(notifier string) (all []Notice, err error) {
	prefix := join(notifier, "")
	err = s.viewNotices(noticesWaiting, func(b *bolt.Bucket) error {
		c := b.Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			r, err := decode[noticeRecord](v, k)
			if err != nil {
				return err
			}
			all = append(all, Notice{Notifier: notifier, Number: numberOf(string(k[len(prefix):])), Transition: Transition{
				Rollout: r.Rollout, Distribution: r.Distribution, Version: r.Version, Phase: fleet.RolloutPhase(r.Phase), Since: r.Since, Text: r.Text}})
		}
		return nil
	})
	return all, err
}

// DropNotice forgets one that the notifier was told of, or is not any more.
func (s *Store) DropNotice(n Notice) error {
	return s.updateNotices(func(root *bolt.Bucket) error {
		return root.Bucket(noticesWaiting).Delete(join(n.Notifier, string(number(n.Number))))
	})
}

// Told is what a notifier was told last of each release.
func (s *Store) Told(notifier string) (map[ReleaseName]Told, error) {
	all, prefix := map[ReleaseName]Told{}, join(notifier, "")
	err := s.viewNotices(noticesTold, func(b *bolt.Bucket) error {
		c := b.Cursor()
		for k, v := c.Seek(prefix); bytes.HasPrefix(k, prefix); k, v = c.Next() {
			r, err := decode[toldRecord](v, k)
			if err != nil {
				return err
			}
			distribution, version, _ := strings.Cut(string(k[len(prefix):]), "\x00")
			all[ReleaseName{distribution, version}] = Told{Sum: r.Sum, State: fleet.Mark(r.State)}
		}
		return nil
	})
	return all, err
}

// PutTold remembers what a notifier was told of a release; nil: nothing more is to be remembered.
func (s *Store) PutTold(notifier string, r ReleaseName, t *Told) error {
	return s.updateNotices(func(root *bolt.Bucket) error {
		b, key := root.Bucket(noticesTold), join(notifier, string(join(r.Distribution, r.Version)))
		if t == nil {
			return b.Delete(key)
		}
		return put(b, key, toldRecord{Sum: t.Sum, State: string(t.State)})
	})
}

// KeepNotices forgets what concerns other notifiers than these; with none, everything. It writes only where
// there is something to forget.
func (s *Store) KeepNotices(notifiers []string) error {
	stale, any := [][]byte(nil), false
	err := s.db.View(func(tx *bolt.Tx) error {
		root := tx.Bucket([]byte(bucketNotices))
		if any = root != nil; !any {
			return nil
		}
		for _, name := range [][]byte{noticesWaiting, noticesTold} {
			c := root.Bucket(name).Cursor()
			for k, _ := c.First(); k != nil; k, _ = c.Next() {
				if owner, _, _ := bytes.Cut(k, []byte{0}); !slices.Contains(notifiers, string(owner)) {
					stale = append(stale, bytes.Clone(k))
				}
			}
		}
		return nil
	})
	switch {
	case err != nil || !any:
		return err
	case len(notifiers) == 0:
		return s.update(func(tx *txn) error { return tx.DeleteBucket([]byte(bucketNotices)) })
	case len(stale) == 0:
		return nil
	}
	return s.updateNotices(func(root *bolt.Bucket) error {
		for _, k := range stale {
			if err := root.Bucket(noticesWaiting).Delete(k); err != nil {
				return err
			}
			if err := root.Bucket(noticesTold).Delete(k); err != nil {
				return err
			}
		}
		return nil
	})
}

func (s *Store) viewNotices(name []byte, do func(*bolt.Bucket) error) error {
	err := s.db.View(func(tx *bolt.Tx) error {
		if root := tx.Bucket([]byte(bucketNotices)); root != nil {
			return do(root.Bucket(name))
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("read notices: %w", err)
	}
	return nil
}

// updateNotices shares a commit with others.
func (s *Store) updateNotices(do func(root *bolt.Bucket) error) error {
	err := s.share(func(tx *txn) error {
		root, err := tx.CreateBucketIfNotExists([]byte(bucketNotices))
		if err != nil {
			return fmt.Errorf("create bucket %s: %w", bucketNotices, err)
		}
		for _, name := range [][]byte{noticesNoted, noticesWaiting, noticesTold} {
			if _, err := root.CreateBucketIfNotExists(name); err != nil {
				return fmt.Errorf("create bucket %s: %w", name, err)
			}
		}
		return do(root)
	})
	if err != nil {
		return fmt.Errorf("write notices: %w", err)
	}
	return nil
}
