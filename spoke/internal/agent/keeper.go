package agent

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/redact"
	"github.com/wheelwright-dev/wheelwright/pkg/sops"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/journal"
)

// keeper stands between the agent and the disk: texts go to the journal without values, and what was rendered for a
// subscription that has `decryption` is sealed for the provider's own age identities. It is opened where it is
// used; so a thief of the data folder has nothing, and a spoke without the identity can read no secret either.
type keeper struct {
	memory
	private *redact.Sink

	mu    sync.Mutex
	keys  map[string]sops.Keys  // by distribution
	sealt map[[32]byte][]byte   // what plain sets were sealed as, so that the journal keeps one of each
	opens map[[32]byte][]byte   // and the way back
	rings map[string]*sops.Ring // of which something was sealed: what is sealed once stays so
}

func newKeeper(m memory, private *redact.Sink) *keeper {
	return &keeper{memory: m, private: private, keys: map[string]sops.Keys{}, sealt: map[[32]byte][]byte{}, opens: map[[32]byte][]byte{}, rings: map[string]*sops.Ring{}}
}

// use takes spoke.yaml's word for where the identities are.
func (k *keeper) use(subscriptions []config.Subscription) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range subscriptions {
		k.keys[s.Distribution] = s.Decryption
	}
}

// keysOf are where a subscription's identities are.
func (k *keeper) keysOf(distribution string) sops.Keys {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.keys[distribution]
}

// mostSets bounds the memory of sets: what runs, what is delivered, what can be returned to, of a few subscriptions.
const mostSets = 32

// ring reads the identities of a subscription; nil: it has none.
func (k *keeper) ringLocked(distribution string) (*sops.Ring, error) {
	keys := k.keys[distribution]
	if keys.None() {
		return nil, nil
	}
	return keys.Open()
}

func (k *keeper) PutRecord(r journal.Record, evs ...fleet.Event) error {
	r = cleanRecord(k.private, r)
	said := make([]fleet.Event, len(evs))
	for i, e := range evs {
		said[i] = cleanEvent(k.private, e)
	}
	r, err := k.sealRecord(r)
	if err != nil {
		return fmt.Errorf("keep what was rendered: %w", err)
	}
	return k.memory.PutRecord(r, said...)
}

func (k *keeper) sealRecord(r journal.Record) (_ journal.Record, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.keys[r.Distribution].None() && k.rings[r.Distribution] == nil {
		return r, nil
	}
	seal := func(data []byte) []byte {
		if err != nil {
			return nil
		}
		var out []byte
		out, err = k.sealLocked(r.Distribution, data)
		return out
	}
	r.Manifest = seal(r.Manifest)
	if r.Delivery != nil {
		d := *r.Delivery
		d.Manifest, d.Course = seal(d.Manifest), seal(d.Course)
		r.Delivery = &d
	}
	previous := make([]journal.Release, len(r.Previous))
	for i, p := range r.Previous {
		p.Manifest = seal(p.Manifest)
		previous[i] = p
	}
	r.Previous = previous
	return r, err
}

func (k *keeper) sealLocked(distribution string, data []byte) ([]byte, error) {
	if len(data) == 0 || sops.Sealed(data) {
		return data, nil
	}
	sum := sha256.Sum256(data)
	if out := k.sealt[sum]; out != nil {
		return out, nil
	}
	ring, err := k.ringLocked(distribution)
	if ring == nil {
		ring = k.rings[distribution]
	}
	if ring == nil {
		return nil, err
	}
	out, err := ring.Seal(data)
	if err != nil {
		return nil, err
	}
	k.rings[distribution] = ring
	k.rememberLocked(sum, data, out)
	return out, nil
}

func (k *keeper) rememberLocked(sum [32]byte, data, out []byte) {
	if len(k.sealt) >= mostSets {
		clear(k.sealt)
		clear(k.opens)
	}
	k.sealt[sum], k.opens[sha256.Sum256(out)] = out, data
}

// open is a set as it was rendered.
func (k *keeper) open(distribution string, data []byte) ([]byte, error) {
	if !sops.Sealed(data) {
		return data, nil
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	at := sha256.Sum256(data)
	if plain := k.opens[at]; plain != nil {
		return plain, nil
	}
	ring, err := k.ringLocked(distribution)
	if err != nil {
		return nil, err
	}
	plain, err := ring.Unseal(data)
	if err != nil {
		return nil, err
	}
	k.rings[distribution] = ring
	k.rememberLocked(sha256.Sum256(plain), plain, data)
	return plain, nil
}

// openRecord has the sets of a record as they were rendered. Those that cannot be opened now stay sealed: who
// needs one is told then.
func (k *keeper) openRecord(r journal.Record) (journal.Record, error) {
	var wrong error
	open := func(data []byte) []byte {
		plain, err := k.open(r.Distribution, data)
		if err != nil {
			wrong = err
			return data
		}
		return plain
	}
	r.Manifest = open(r.Manifest)
	if r.Delivery != nil {
		d := *r.Delivery
		d.Manifest, d.Course = open(d.Manifest), open(d.Course)
		r.Delivery = &d
	}
	for i, p := range r.Previous {
		r.Previous[i].Manifest = open(p.Manifest)
	}
	return r, wrong
}

// errEncrypted: files of the overlay cannot be decrypted; the provider has to act.
var errEncrypted = errors.New("overlay")

// decrypted is an overlay with the files that SOPS encrypted as kustomize is to see them: in memory alone.
func decrypted(keys sops.Keys, given []provenance.File) (files []provenance.File, values []string, err error) {
	var ring *sops.Ring
	opened := false
	for i, f := range given {
		p, encrypted, err := ring.Decrypt(f.Path, f.Data)
		if encrypted && !opened && !keys.None() {
			opened = true
			if ring, err = keys.Open(); err != nil {
				return nil, nil, fmt.Errorf("%w: %s: %w", errEncrypted, f.Path, err)
			}
			p, _, err = ring.Decrypt(f.Path, f.Data)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", errEncrypted, err)
		}
		if !encrypted {
			continue
		}
		if files == nil {
			files = append(files, given...)
		}
		files[i].Data, values = p.Data, append(values, p.Values...)
	}
	if files == nil {
		files = given
	}
	return files, values, nil
}
