package store

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
)

// keepStatements is how many of a vendor's statements are kept: the newest.
const keepStatements = 100

// ErrFork: a statement does not follow the one that is kept.
var ErrFork = errors.New("does not follow")

// Channel is what the vendor of a distribution has stated, in its order; ErrNotFound when it is not watched.
func (s *Store) Channel(distribution string) (log channel.Log, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		rec, found, err := get[distributionRecord](tx.Bucket(bucketDistributions), []byte(distribution))
		if err == nil && !found {
			err = fmt.Errorf("channel of %s: %w", distribution, ErrNotFound)
		}
		if err != nil {
			return err
		}
		log, err = statements(distribution, rec)
		return err
	})
	return log, err
}

func statements(distribution string, rec distributionRecord) (log channel.Log, err error) {
	for _, r := range rec.Channel {
		one, err := channel.Parse(r.Text)
		if err != nil {
			return nil, fmt.Errorf("channel of %s: %w: %w", distribution, ErrCorrupt, err)
		}
		log = append(log, channel.Seen{Signed: one, At: r.At})
	}
	return log, nil
}

// AddStatement keeps a statement and offers it to every spoke: ErrExists for one that is kept already, ErrFork
// for one that does not follow the last.
func (a Audited) AddStatement(s channel.Signed, at time.Time) error {
	return a.update(func(tx *txn) error {
		name := s.Distribution
		b := tx.Bucket(bucketDistributions)
		rec, found, err := get[distributionRecord](b, []byte(name))
		if err == nil && !found {
			err = ErrNotFound
		}
		if err != nil {
			return fmt.Errorf("add statement %d of %s: %w", s.Sequence, name, err)
		}
		log, err := statements(name, rec)
		if err != nil {
			return err
		}
		if err := Follows(log, s); err != nil {
			return fmt.Errorf("add statement %d of %s: %w", s.Sequence, name, err)
		}
		rec.Channel = append(rec.Channel, statementRecord{s.Bytes(), utc(at)})
		rec.Channel = rec.Channel[max(0, len(rec.Channel)-keepStatements):]
		if err := put(b, []byte(name), rec); err != nil {
			return err
		}
		return a.s.bump(tx, name)
	})
}

// Follows says whether a statement may be added to a log; a log that is empty takes any.
func Follows(log channel.Log, s channel.Signed) error {
	last, ok := log.Last()
	switch {
	case !ok:
		return nil
	case last.Digest() == s.Digest():
		return ErrExists
	case s.Sequence != last.Sequence+1 || s.Previous != last.Digest():
		return fmt.Errorf("%w statement %d, %s: it has sequence %d and names %s before it", ErrFork, last.Sequence, last.Digest(), s.Sequence, cmp.Or(string(s.Previous), "nothing"))
	}
	return nil
}
