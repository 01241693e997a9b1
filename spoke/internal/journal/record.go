package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// KeepPrevious is how many earlier releases a record keeps to return to.
const KeepPrevious = 5

// Record is all that the spoke remembers of one subscription.
type Record struct {
	Distribution string
	Installation fleet.Installation
	Manifest     []byte    // the rendered set that runs; nil before the first install
	Inventory    []byte    // of the cluster's objects, with those of an unfinished attempt
	Delivery     *Attempt  // under way, or the last one; nil for none
	Previous     []Release // newest first; PutRecord keeps KeepPrevious
	Held         map[string]Hold
	Tried        map[string]Trial // pre-flights by version
	Pin          *fleet.Pin       // made at the spoke's command line; nil: none
	Decided      time.Time        // of the newest decision of the hub that was acted on
	Orders       []Answered       // operators' signed orders that were answered, until they have expired

	Floor string                  // the highest version that ran healthy here; lower where its provider agreed to go back
	First map[string]fleet.Digest // by version, the bundle that was first found good here; PutRecord keeps KeepFirst
	Told  []fleet.Told            // the vendor's statements that came, each once, in their order
}

// KeepFirst is how many versions' first bundles a record keeps: the highest.
const KeepFirst = 500

type storedTold struct {
	Text []byte    `json:"text"`
	At   time.Time `json:"at"`
}

// Answered is an order that is never to be answered again in another way.
type Answered struct {
	Nonce    string // in hexadecimal
	Text     string // SHA-256 of what was signed, in hexadecimal
	Until    time.Time
	Accepted bool
	Answer   string // one line
}

// Attempt is one delivery, as far as it has come.
type Attempt struct {
	Target                    string
	Bundle, Overlay, Rendered fleet.Digest
	Manifest                  []byte // the rendered set that it goes to; nil before it is rendered
	Phase                     fleet.Phase
	Started, Deadline         time.Time

	Restarts int      // of the spoke since it began to touch the cluster
	ByHand   bool     // a person wanted the release to be left
	Asks     []string // why the provider is, or was, asked first
	Approved []string // the asks that the provider said yes to
	Keep     []string // definitions that stay as they are on a return
	Proof    string   // what is known of the release by its tests; "" where nothing is
	Applied  bool     // the provider is asked while the release is on the cluster
	Touched  bool     // something of the release's own was applied

	Course   []byte    // that a canary plugin planned; nil: none
	Walk     []byte    // how far it has come, as package delivery says
	Counted  []byte    // what its measurements came to
	Failed   int       // tests that failed during them
	Measured time.Time // when the last measurement was, or traffic had settled

	SignedBy []string // whose signatures were found
}

// Trial is a release that was tried out without touching anything.
type Trial struct {
	Recipe fleet.Digest // what it was rendered for, beside the bundle
	Result fleet.Preflight
}

// Release is a rendered set that ran here.
type Release struct {
	Version                   string
	Variant, Namespace        string
	Bundle, Overlay, Rendered fleet.Digest
	Manifest                  []byte
	SignedBy                  []string
}

// Hold keeps a version from being taken again.
type Hold struct {
	Overlay fleet.Digest // with this recipe only; empty: with any, since a person said so
	Reason  string
	At      time.Time
	Until   time.Time // zero: until a person or a newer release clears it
}

type storedRecord struct {
	Schema       int                    `json:"schema"`
	Installation storedInstallation     `json:"installation"`
	Manifest     string                 `json:"manifest,omitempty"`
	Inventory    string                 `json:"inventory,omitempty"`
	Delivery     *storedAttempt         `json:"delivery,omitempty"`
	Previous     []storedRelease        `json:"previous,omitempty"`
	Held         map[string]storedHold  `json:"held,omitempty"`
	Tried        map[string]storedTrial `json:"tried,omitempty"`
	Pin          *storedPin             `json:"pin,omitempty"`
	Decided      time.Time              `json:"decided,omitzero"`
	Orders       []storedOrder          `json:"orders,omitempty"`
	Floor        string                 `json:"floor,omitempty"`
	First        map[string]string      `json:"first,omitempty"`
	Told         string                 `json:"told,omitempty"` // a blob: it seldom changes
}

type storedOrder struct {
	Nonce    string    `json:"nonce"`
	Text     string    `json:"text"`
	Until    time.Time `json:"until"`
	Accepted bool      `json:"accepted,omitempty"`
	Answer   string    `json:"answer,omitempty"`
}

type storedAttempt struct {
	storedRelease
	Phase    string    `json:"phase"`
	Started  time.Time `json:"started,omitzero"`
	Deadline time.Time `json:"deadline,omitzero"`
	Restarts int       `json:"restarts,omitempty"`
	ByHand   bool      `json:"byHand,omitempty"`
	Asks     []string  `json:"asks,omitempty"`
	Approved []string  `json:"approved,omitempty"`
	Keep     []string  `json:"keep,omitempty"`
	Proof    string    `json:"proof,omitempty"`
	Applied  bool      `json:"applied,omitempty"`
	Touched  bool      `json:"touched,omitempty"`
	Course   []byte    `json:"course,omitempty"`
	Walk     []byte    `json:"walk,omitempty"`
	Counted  []byte    `json:"counted,omitempty"`
	Failed   int       `json:"failed,omitempty"`
	Measured time.Time `json:"measured,omitzero"`
}

type storedRelease struct {
	Version  string   `json:"version"`
	Variant  string   `json:"variant,omitempty"`
	Space    string   `json:"namespace,omitempty"`
	Bundle   string   `json:"bundle,omitempty"`
	Overlay  string   `json:"overlay,omitempty"`
	Rendered string   `json:"rendered,omitempty"`
	Manifest string   `json:"manifest,omitempty"`
	SignedBy []string `json:"signedBy,omitempty"`
}

type storedHold struct {
	Overlay string    `json:"overlay,omitempty"`
	Reason  string    `json:"reason"`
	At      time.Time `json:"at,omitzero"`
	Until   time.Time `json:"until,omitzero"`
}

type storedTrial struct {
	Recipe        string         `json:"recipe,omitempty"`
	Version       string         `json:"version"`
	Bundle        string         `json:"bundle"`
	Overlay       string         `json:"overlay,omitempty"`
	Outcome       string         `json:"outcome"`
	Changes       []storedChange `json:"changes,omitempty"`
	Reason        string         `json:"reason,omitempty"`
	Reversibility string         `json:"reversibility,omitempty"`
	At            time.Time      `json:"at,omitzero"`
}

type storedChange struct {
	Kind  string `json:"kind"`
	Verb  string `json:"verb"`
	Count int    `json:"count"`
}

// PutRecord replaces the record of r.Distribution and appends evs in one transaction: the hub never
// hears of a state that a restarted spoke would not know.
func (j *Journal) PutRecord(r Record, evs ...fleet.Event) error {
	if r.Distribution == "" {
		return fmt.Errorf("journal %s: put record: it names no distribution", j.path)
	}
	err := j.update(func(tx *bolt.Tx) error {
		s, err := storeRecord(tx, r)
		if err != nil {
			return err
		}
		data, err := json.Marshal(s)
		if err != nil {
			return err
		}
		if err := tx.Bucket(recordBucket).Put([]byte(r.Distribution), data); err != nil {
			return err
		}
		for _, ev := range evs {
			if _, err := appendEvent(tx, ev); err != nil {
				return err
			}
		}
		return sweep(tx)
	})
	if err == nil && len(evs) > 0 {
		j.wake()
	}
	return err
}

// Record finds a subscription's record.
func (j *Journal) Record(distribution string) (r Record, found bool, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		data := tx.Bucket(recordBucket).Get([]byte(distribution))
		if data == nil {
			return nil
		}
		found = true
		r, err = readRecord(tx, distribution, data)
		return err
	})
	return r, found && err == nil, err
}

// Records are all records by name of distribution.
func (j *Journal) Records() (all []Record, err error) {
	err = j.view(func(tx *bolt.Tx) error {
		all, err = records(tx)
		return err
	})
	return all, err
}

// DeleteRecord forgets a subscription; one that is not there is no error.
func (j *Journal) DeleteRecord(distribution string) error {
	return j.update(func(tx *bolt.Tx) error {
		if err := tx.Bucket(recordBucket).Delete([]byte(distribution)); err != nil {
			return err
		}
		return sweep(tx)
	})
}

func records(tx *bolt.Tx) ([]Record, error) {
	var all []Record
	err := tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
		r, err := readRecord(tx, string(k), v)
		all = append(all, r)
		return err
	})
	return all, err
}

func storeRecord(tx *bolt.Tx, r Record) (storedRecord, error) {
	var failed error
	blob := func(data []byte) string {
		if data == nil || failed != nil {
			return ""
		}
		sum := sha256.Sum256(data)
		if b := tx.Bucket(blobBucket); b.Get(sum[:]) == nil {
			failed = b.Put(sum[:], data)
		}
		return hex.EncodeToString(sum[:])
	}
	s := storedRecord{Schema: Schema, Installation: storeInstallation(r.Installation), Manifest: blob(r.Manifest), Inventory: blob(r.Inventory),
		Pin: storePin(r.Pin), Decided: r.Decided, Floor: r.Floor, First: storeFirst(r.First)}
	for _, o := range r.Orders {
		s.Orders = append(s.Orders, storedOrder(o))
	}
	if len(r.Told) > 0 {
		var all []storedTold
		for _, t := range r.Told {
			all = append(all, storedTold(t))
		}
		told, err := json.Marshal(all)
		if err != nil {
			return s, err
		}
		s.Told = blob(told)
	}
	if a := r.Delivery; a != nil {
		s.Delivery = &storedAttempt{Phase: string(a.Phase), Started: a.Started, Deadline: a.Deadline,
			Restarts: a.Restarts, ByHand: a.ByHand, Asks: a.Asks, Approved: a.Approved, Keep: a.Keep, Proof: a.Proof, Applied: a.Applied,
			Touched: a.Touched, Course: a.Course, Walk: a.Walk, Counted: a.Counted, Failed: a.Failed, Measured: a.Measured,
			storedRelease: storedRelease{a.Target, "", "", string(a.Bundle), string(a.Overlay), string(a.Rendered), blob(a.Manifest), a.SignedBy}}
	}
	for _, p := range r.Previous[:min(len(r.Previous), KeepPrevious)] {
		s.Previous = append(s.Previous, storedRelease{p.Version, p.Variant, p.Namespace, string(p.Bundle), string(p.Overlay), string(p.Rendered), blob(p.Manifest), p.SignedBy})
	}
	for version, h := range r.Held {
		if s.Held == nil {
			s.Held = map[string]storedHold{}
		}
		s.Held[version] = storedHold{string(h.Overlay), h.Reason, h.At, h.Until}
	}
	for version, t := range r.Tried {
		if s.Tried == nil {
			s.Tried = map[string]storedTrial{}
		}
		s.Tried[version] = storeTrial(t)
	}
	return s, failed
}

// storeFirst keeps the highest versions.
func storeFirst(first map[string]fleet.Digest) map[string]string {
	if len(first) == 0 {
		return nil
	}
	versions := slices.SortedFunc(maps.Keys(first), fleet.CompareTags)
	kept := map[string]string{}
	for _, v := range versions[max(0, len(versions)-KeepFirst):] {
		kept[v] = string(first[v])
	}
	return kept
}

func readRecord(tx *bolt.Tx, distribution string, data []byte) (Record, error) {
	var s storedRecord
	if err := json.Unmarshal(data, &s); err != nil {
		return Record{}, fmt.Errorf("%w: record of %s: %w", ErrDamaged, distribution, err)
	}
	var failed error
	blob := func(id string) []byte {
		if id == "" {
			return nil
		}
		key, err := hex.DecodeString(id)
		data := tx.Bucket(blobBucket).Get(key)
		if err != nil || data == nil || sha256.Sum256(data) != [32]byte(key) {
			failed = fmt.Errorf("%w: record of %s: its set %s is gone or changed", ErrDamaged, distribution, id)
			return nil
		}
		return append([]byte{}, data...) // bbolt's memory ends with the transaction
	}
	installation, err := s.Installation.noun()
	if err != nil {
		return Record{}, fmt.Errorf("%w: record of %s: %w", ErrDamaged, distribution, err)
	}
	r := Record{Distribution: distribution, Installation: installation, Manifest: blob(s.Manifest), Inventory: blob(s.Inventory),
		Pin: s.Pin.noun(), Decided: s.Decided, Floor: s.Floor}
	for _, o := range s.Orders {
		r.Orders = append(r.Orders, Answered(o))
	}
	for version, d := range s.First {
		if r.First == nil {
			r.First = map[string]fleet.Digest{}
		}
		r.First[version] = fleet.Digest(d)
	}
	if told := blob(s.Told); told != nil {
		var all []storedTold
		if err := json.Unmarshal(told, &all); err != nil {
			return Record{}, fmt.Errorf("%w: record of %s: what its vendor told: %w", ErrDamaged, distribution, err)
		}
		for _, t := range all {
			r.Told = append(r.Told, fleet.Told(t))
		}
	}
	if a := s.Delivery; a != nil {
		r.Delivery = &Attempt{a.Version, fleet.Digest(a.Bundle), fleet.Digest(a.Overlay), fleet.Digest(a.Rendered), blob(a.Manifest), fleet.Phase(a.Phase), a.Started, a.Deadline,
			a.Restarts, a.ByHand, a.Asks, a.Approved, a.Keep, a.Proof, a.Applied, a.Touched, a.Course, a.Walk, a.Counted, a.Failed, a.Measured, a.SignedBy}
	}
	for _, p := range s.Previous {
		r.Previous = append(r.Previous, Release{p.Version, p.Variant, p.Space, fleet.Digest(p.Bundle), fleet.Digest(p.Overlay), fleet.Digest(p.Rendered), blob(p.Manifest), p.SignedBy})
	}
	for version, h := range s.Held {
		if r.Held == nil {
			r.Held = map[string]Hold{}
		}
		r.Held[version] = Hold{fleet.Digest(h.Overlay), h.Reason, h.At, h.Until}
	}
	for version, t := range s.Tried {
		if r.Tried == nil {
			r.Tried = map[string]Trial{}
		}
		r.Tried[version] = t.noun()
	}
	return r, failed
}

// sweep drops the blobs that no record names any more.
func sweep(tx *bolt.Tx) error {
	used := map[string]bool{}
	err := tx.Bucket(recordBucket).ForEach(func(k, v []byte) error {
		var s storedRecord
		if err := json.Unmarshal(v, &s); err != nil {
			return fmt.Errorf("%w: record of %s: %w", ErrDamaged, k, err)
		}
		used[s.Manifest], used[s.Inventory], used[s.Told] = true, true, true
		if s.Delivery != nil {
			used[s.Delivery.Manifest] = true
		}
		for _, p := range s.Previous {
			used[p.Manifest] = true
		}
		return nil
	})
	if err != nil {
		return err
	}
	b := tx.Bucket(blobBucket)
	var unused [][]byte
	b.ForEach(func(k, _ []byte) error {
		if !used[hex.EncodeToString(k)] {
			unused = append(unused, append([]byte{}, k...))
		}
		return nil
	})
	for _, k := range unused {
		if err := b.Delete(k); err != nil {
			return err
		}
	}
	return nil
}

func storeTrial(t Trial) storedTrial {
	p := t.Result
	s := storedTrial{Recipe: string(t.Recipe), Version: p.Version, Bundle: string(p.Bundle), Overlay: string(p.Overlay), Outcome: string(p.Outcome),
		Reason: p.Reason, Reversibility: string(p.Reversibility), At: p.At}
	for _, c := range p.Changes {
		s.Changes = append(s.Changes, storedChange{c.Kind, string(c.Verb), c.Count})
	}
	return s
}

func (s storedTrial) noun() Trial {
	t := Trial{Recipe: fleet.Digest(s.Recipe), Result: fleet.Preflight{Version: s.Version, Bundle: fleet.Digest(s.Bundle), Overlay: fleet.Digest(s.Overlay),
		Outcome: fleet.Outcome(s.Outcome), Reason: s.Reason, Reversibility: fleet.Reversibility(s.Reversibility), At: s.At}}
	for _, c := range s.Changes {
		t.Result.Changes = append(t.Result.Changes, fleet.KindChange{Kind: c.Kind, Verb: fleet.Verb(c.Verb), Count: c.Count})
	}
	return t
}
