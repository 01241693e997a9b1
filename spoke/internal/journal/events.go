package journal

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// storedEvent is an event's record.
type storedEvent struct {
	At           time.Time           `json:"at"`
	Distribution string              `json:"distribution,omitempty"`
	Version      string              `json:"version,omitempty"`
	Kind         string              `json:"kind"`
	Message      string              `json:"message,omitempty"`
	Installation *storedInstallation `json:"installation,omitempty"`
	Preflight    *storedTrial        `json:"preflight,omitempty"`
	Order        *storedAnswer       `json:"order,omitempty"`
	ReHome       *storedMove         `json:"reHome,omitempty"`

	Dropped int        `json:"dropped,omitempty"` // events in whose place this one is
	Since   *time.Time `json:"since,omitempty"`   // of the first of them
}

type storedAnswer struct {
	Nonce    string `json:"nonce"`
	Accepted bool   `json:"accepted,omitempty"`
}

type storedMove struct {
	Nonce string            `json:"nonce"`
	State fleet.ReHomeState `json:"state"`
}

// KeepEvents is how many events wait for a hub that is away, as many as a hub keeps in its history. The
// oldest make way, several at a time; what runs now is in the spoke's greeting all the same.
const (
	KeepEvents = 10_000
	dropEvents = 500
)

// Append keeps an event until it is acknowledged and returns its number: from 1, without gaps. It is
// on the disk when Append returns. Beyond KeepEvents the oldest are dropped. ID, Seq and Cluster of ev are ignored.
func (j *Journal) Append(ev fleet.Event) (seq uint64, err error) {
	err = j.update(func(tx *bolt.Tx) error {
		seq, err = appendEvent(tx, ev)
		return err
	})
	if err != nil {
		return 0, err
	}
	j.wake()
	return seq, nil
}

// Pending returns up to max events (0: all) with a number above after, ascending.
func (j *Journal) Pending(after uint64, max int) (events []fleet.Event, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		events, err = pending(tx, after, max)
		return err
	})
	return events, err
}

// Ack forgets every event up to and including seq. Where the hub knows a larger number than this file
// ever gave, as after a volume was restored from an older copy, numbering goes on above it: else the
// hub would take the next events for ones it has.
func (j *Journal) Ack(seq uint64) error {
	if seq == 0 {
		return nil
	}
	return j.update(func(tx *bolt.Tx) error {
		b := tx.Bucket(eventBucket)
		if b.Sequence() < seq {
			if err := b.SetSequence(seq); err != nil {
				return err
			}
		}
		c := b.Cursor()
		for k, _ := c.First(); k != nil && binary.BigEndian.Uint64(k) <= seq; k, _ = c.First() {
			if err := c.Delete(); err != nil {
				return err
			}
		}
		return nil
	})
}

// Notify yields after events were appended; several appends may share one. It is for one reader.
func (j *Journal) Notify() <-chan struct{} { return j.notify }

func (j *Journal) wake() {
	select {
	case j.notify <- struct{}{}:
	default:
	}
}

// PutDesired keeps what the hub offers, for the time that it is away. Offers are the hub's message as
// it came, the one thing here that is stored in the wire's form: protobuf keeps that readable.
func (j *Journal) PutDesired(d *syncv1.DesiredState) error {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(d)
	if err != nil {
		return fmt.Errorf("journal %s: encode desired state: %w", j.path, err)
	}
	return j.update(func(tx *bolt.Tx) error { return tx.Bucket(metaBucket).Put(desiredKey, data) })
}

// Desired is the last desired state; nil when there was none.
func (j *Journal) Desired() (d *syncv1.DesiredState, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		d, err = desired(tx)
		return err
	})
	return d, err
}

func desired(tx *bolt.Tx) (*syncv1.DesiredState, error) {
	data := tx.Bucket(metaBucket).Get(desiredKey)
	if data == nil {
		return nil, nil
	}
	d := &syncv1.DesiredState{}
	if err := proto.Unmarshal(data, d); err != nil {
		return nil, fmt.Errorf("%w: desired state: %w", ErrDamaged, err)
	}
	return d, nil
}

func appendEvent(tx *bolt.Tx, ev fleet.Event) (uint64, error) {
	b := tx.Bucket(eventBucket)
	seq, err := b.NextSequence()
	if err != nil {
		return 0, err
	}
	s := storedEvent{At: ev.At, Distribution: ev.Distribution, Version: ev.Version, Kind: string(ev.Kind), Message: ev.Message}
	if ev.Installation != nil {
		i := storeInstallation(*ev.Installation)
		s.Installation = &i
	}
	if ev.Preflight != nil {
		t := storeTrial(Trial{Result: *ev.Preflight})
		s.Preflight = &t
	}
	if ev.Order != nil {
		a := storedAnswer(*ev.Order)
		s.Order = &a
	}
	if ev.ReHome != nil {
		m := storedMove(*ev.ReHome)
		s.ReHome = &m
	}
	data, err := json.Marshal(s)
	if err != nil {
		return 0, err
	}
	if err := b.Put(binary.BigEndian.AppendUint64(nil, seq), data); err != nil {
		return 0, err
	}
	return seq, bound(b)
}

// bound drops the oldest events of too many. One event stands in their place, with the number of the
// last of them, and says how many there were.
func bound(b *bolt.Bucket) error {
	c := b.Cursor()
	first, _ := c.First()
	if len(first) != 8 || b.Sequence()-binary.BigEndian.Uint64(first) < KeepEvents { // numbers have no gaps
		return nil
	}
	last := binary.BigEndian.Uint64(first) + dropEvents
	one := storedEvent{Kind: string(fleet.EventAgent)}
	for k, v := c.First(); len(k) == 8 && binary.BigEndian.Uint64(k) <= last; k, v = c.First() {
		var s storedEvent
		if err := json.Unmarshal(v, &s); err != nil {
			return fmt.Errorf("%w: event %x: %w", ErrDamaged, k, err)
		}
		one.Dropped += max(s.Dropped, 1)
		if one.Since == nil {
			one.Since = &s.At
			if s.Since != nil {
				one.Since = s.Since
			}
		}
		one.At = s.At
		if err := c.Delete(); err != nil {
			return err
		}
	}
	one.Message = fmt.Sprintf("%d events from %s to %s were dropped: the hub was away for longer than the spoke keeps them", one.Dropped,
		one.Since.UTC().Format(time.RFC3339), one.At.UTC().Format(time.RFC3339))
	data, err := json.Marshal(one)
	if err != nil {
		return err
	}
	return b.Put(binary.BigEndian.AppendUint64(nil, last), data)
}

func pending(tx *bolt.Tx, after uint64, max int) ([]fleet.Event, error) {
	var events []fleet.Event
	c := tx.Bucket(eventBucket).Cursor()
	for k, v := c.Seek(binary.BigEndian.AppendUint64(nil, after+1)); k != nil && (max <= 0 || len(events) < max); k, v = c.Next() {
		var s storedEvent
		if len(k) != 8 {
			return nil, fmt.Errorf("%w: event key %x", ErrDamaged, k)
		}
		if err := json.Unmarshal(v, &s); err != nil {
			return nil, fmt.Errorf("%w: event %x: %w", ErrDamaged, k, err)
		}
		ev := fleet.Event{Seq: binary.BigEndian.Uint64(k), At: s.At, Distribution: s.Distribution, Version: s.Version,
			Kind: fleet.EventKind(s.Kind), Message: s.Message}
		if s.Installation != nil {
			i, err := s.Installation.noun()
			if err != nil {
				return nil, fmt.Errorf("%w: event %x: %w", ErrDamaged, k, err)
			}
			ev.Installation = &i
		}
		if s.Preflight != nil {
			p := s.Preflight.noun().Result
			ev.Preflight = &p
		}
		if s.Order != nil {
			a := fleet.OrderAnswer(*s.Order)
			ev.Order = &a
		}
		if s.ReHome != nil {
			m := fleet.ReHomeAnswer(*s.ReHome)
			ev.ReHome = &m
		}
		events = append(events, ev)
	}
	return events, nil
}
