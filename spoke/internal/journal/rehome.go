package journal

import (
	"encoding/json"
	"fmt"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// ReHome is the last move to another hub that was taken. The zero ReHome: none was.
type ReHome struct {
	Nonce  string    // in hexadecimal
	Issued time.Time // what was issued before is not taken any more
	State  fleet.ReHomeState
	From   string  // HOST:PORT of the hub that it leaves
	Signed []byte  // the statement with its signatures; empty once the move is over
	Tried  bool    // the token was sent, and may be spent
	Left   uint64  // the number of the event that tells the hub of the move; 0: it was not told yet
	Taken  []Taken // this one and those before it, until they have expired
}

// Taken is a move that is not taken again.
type Taken struct {
	Nonce string // in hexadecimal
	Until time.Time
}

// UnderWay reports that the move is not over.
func (r ReHome) UnderWay() bool { return r.State == fleet.ReHomeMoving }

type storedReHome struct {
	Nonce  string            `json:"nonce"`
	Issued time.Time         `json:"issued"`
	State  fleet.ReHomeState `json:"state"`
	From   string            `json:"from,omitempty"`
	Signed []byte            `json:"signed,omitempty"`
	Tried  bool              `json:"tried,omitempty"`
	Left   uint64            `json:"left,omitempty"`
	Taken  []storedTaken     `json:"taken,omitempty"`
}

type storedTaken struct {
	Nonce string    `json:"nonce"`
	Until time.Time `json:"until"`
}

var reHomeKey = []byte("re-home")

// PutReHome keeps r and tells the hub, in one transaction. Where r has told the hub that the spoke leaves it, Left is
// set to that event's number.
func (j *Journal) PutReHome(r *ReHome, events ...fleet.Event) error {
	left := r.Left
	err := j.update(func(tx *bolt.Tx) error {
		left = r.Left
		for _, ev := range events {
			seq, err := appendEvent(tx, ev)
			if err != nil {
				return err
			}
			if ev.ReHome != nil && ev.ReHome.State == fleet.ReHomeMoved && r.UnderWay() {
				left = seq
			}
		}
		s := storedReHome{Nonce: r.Nonce, Issued: r.Issued, State: r.State, From: r.From, Signed: r.Signed, Tried: r.Tried, Left: left}
		for _, t := range r.Taken {
			s.Taken = append(s.Taken, storedTaken(t))
		}
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		return tx.Bucket(metaBucket).Put(reHomeKey, data)
	})
	if err != nil {
		return err
	}
	if r.Left = left; len(events) > 0 {
		j.wake()
	}
	return nil
}

// ReHome is what PutReHome kept last.
func (j *Journal) ReHome() (r ReHome, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		r, err = reHome(tx)
		return err
	})
	return r, err
}

func reHome(tx *bolt.Tx) (ReHome, error) {
	data := tx.Bucket(metaBucket).Get(reHomeKey)
	if data == nil {
		return ReHome{}, nil
	}
	var s storedReHome
	if err := json.Unmarshal(data, &s); err != nil {
		return ReHome{}, fmt.Errorf("%w: re-home: %w", ErrDamaged, err)
	}
	r := ReHome{Nonce: s.Nonce, Issued: s.Issued, State: s.State, From: s.From, Signed: s.Signed, Tried: s.Tried, Left: s.Left}
	for _, t := range s.Taken {
		r.Taken = append(r.Taken, Taken(t))
	}
	return r, nil
}

// Pends reports that the hub has not acknowledged the event with this number.
func (j *Journal) Pends(seq uint64) (bool, error) {
	next, err := j.Pending(seq-1, 1)
	return len(next) > 0 && next[0].Seq == seq, err
}
