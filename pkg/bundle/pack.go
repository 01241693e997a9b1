package bundle

import (
	"bytes"
	"container/list"
	"crypto/sha256"
	"encoding"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"slices"
	"strings"
	"sync"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// Pack writes the canonical tar. The order of files does not matter.
func Pack(files []provenance.File, proof provenance.Proof) ([]byte, error) {
	entries, err := entriesOf(files, proof)
	if err != nil {
		return nil, err
	}
	return (&tape{}).next(entries).tar, nil
}

// Packer packs the releases of distributions one after the other: of what the one before had too, headers are taken
// over, and up to the first byte that differs the hash is not computed again. Bytes and digest are those that Pack and
// DigestOf give. It holds the last tars, within a bound; one that it does not hold any more costs time and nothing
// else. Safe for concurrent use.
type Packer struct {
	most int

	mu    sync.Mutex
	last  map[string]*list.Element // of kept, by distribution
	order *list.List               // the last used first
	held  int                      // bytes
}

type kept struct {
	name string
	tape *tape
}

// NewPacker holds at most so many bytes from one release to the next.
func NewPacker(most int) *Packer {
	return &Packer{most: most, last: map[string]*list.Element{}, order: list.New()}
}

// Pack is the canonical tar of a distribution's release, and its digest. The tar is shared: read only.
func (p *Packer) Pack(distribution string, files []provenance.File, proof provenance.Proof) ([]byte, fleet.Digest, error) {
	entries, err := entriesOf(files, proof)
	if err != nil {
		return nil, "", err
	}
	t := p.before(distribution).next(entries)
	d, err := t.digest()
	if err != nil {
		return nil, "", fmt.Errorf("pack bundle of %s: %w", proof.TagName, err)
	}
	p.keep(distribution, t)
	return t.tar, d, nil
}

// Forget lets go of a distribution's last tar.
func (p *Packer) Forget(distribution string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.last[distribution]; ok {
		p.dropLocked(e)
	}
}

func (p *Packer) before(distribution string) *tape {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, ok := p.last[distribution]
	if !ok {
		return &tape{}
	}
	return e.Value.(kept).tape
}

func (p *Packer) keep(distribution string, t *tape) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, ok := p.last[distribution]; ok {
		p.dropLocked(e)
	}
	t.was = nil
	if t.cost() > p.most {
		return
	}
	p.last[distribution] = p.order.PushFront(kept{distribution, t})
	for p.held += t.cost(); p.held > p.most; {
		p.dropLocked(p.order.Back())
	}
}

func (p *Packer) dropLocked(e *list.Element) {
	was := p.order.Remove(e).(kept)
	delete(p.last, was.name)
	p.held -= was.tape.cost()
}

// tape is a tar with what makes the next one cheaper.
type tape struct {
	tar     []byte
	entries []taped
	states  [][]byte // of the hash, after each whole stretch
	was     *tape    // the one before; nil: none, or let go
}

type taped struct {
	name       string
	executable bool
	size       int // of the data
	at         int // of the header
}

// stretch is how much is compared, and hashed, at once: a multiple of the hash's blocks.
const stretch = 64 << 10

const entryCost, stateCost = 64, 160 // bytes, beside the name

func (t *tape) cost() int {
	n := cap(t.tar) + len(t.states)*stateCost
	for _, e := range t.entries {
		n += entryCost + len(e.name)
	}
	return n
}

// next writes the tar of entries, which are sorted by name.
func (t *tape) next(entries []entry) *tape {
	size := 2 * blockSize
	for _, e := range entries {
		size += headerSize(e.name) + padded(len(e.data))
	}
	n := &tape{tar: make([]byte, 0, size), entries: make([]taped, 0, len(entries)), was: t}
	old := t.entries
	for _, e := range entries {
		for len(old) > 0 && old[0].name < e.name {
			old = old[1:]
		}
		now := taped{e.name, e.executable, len(e.data), len(n.tar)}
		if len(old) > 0 && old[0].name == now.name && old[0].executable == now.executable && old[0].size == now.size {
			now.name = old[0].name
			n.tar = append(n.tar, t.tar[old[0].at:old[0].at+headerSize(e.name)]...)
		} else {
			n.tar = appendHeader(n.tar, e.name, len(e.data), e.executable)
		}
		n.tar = append(n.tar, e.data...)
		n.tar = append(n.tar, zeros[:padded(len(e.data))-len(e.data)]...)
		n.entries = append(n.entries, now)
	}
	n.tar = append(n.tar, zeros[:]...)
	return n
}

type resumable interface {
	hash.Hash
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// digest hashes from where the tar begins to differ from the one before.
func (t *tape) digest() (fleet.Digest, error) {
	h, ok := sha256.New().(resumable)
	if !ok {
		return "", errors.New("sha256 of the standard library keeps no state")
	}
	same := 0
	for same < len(t.was.states) && len(t.tar) >= (same+1)*stretch &&
		bytes.Equal(t.tar[same*stretch:(same+1)*stretch], t.was.tar[same*stretch:(same+1)*stretch]) {
		same++
	}
	t.states = slices.Clone(t.was.states[:same])
	if same > 0 {
		if err := h.UnmarshalBinary(t.states[same-1]); err != nil {
			return "", fmt.Errorf("resume the hash: %w", err)
		}
	}
	rest := t.tar[same*stretch:]
	for ; len(rest) >= stretch; rest = rest[stretch:] {
		h.Write(rest[:stretch])
		state, err := h.MarshalBinary()
		if err != nil {
			return "", fmt.Errorf("keep the hash: %w", err)
		}
		t.states = append(t.states, state)
	}
	h.Write(rest)
	return fleet.Digest("sha256:" + hex.EncodeToString(h.Sum(nil))), nil
}

// entriesOf are what a bundle holds, sorted by name.
func entriesOf(files []provenance.File, proof provenance.Proof) ([]entry, error) {
	if err := check(files, proof); err != nil {
		return nil, fmt.Errorf("pack bundle of %s: %w", proof.TagName, err)
	}
	entries := make([]entry, 0, len(files)+4+len(proof.Cosigned)+len(proof.Trees))
	for _, f := range files {
		entries = append(entries, entry{filesDir + f.Path, f.Executable, f.Data})
	}
	byName := func(a, b entry) int { return strings.Compare(a.name, b.name) }
	if !slices.IsSortedFunc(entries, byName) {
		slices.SortFunc(entries, byName)
	}
	entries = append(entries, entry{name: commitName, data: proof.Commit},
		entry{name: releaseName, data: fmt.Appendf(nil, release, proof.Path, proof.TagName)})
	if proof.Tag != nil {
		entries = append(entries, entry{name: tagName, data: proof.Tag})
	}
	for i, t := range proof.Cosigned {
		entries = append(entries, entry{name: numbered(tagPrefix, i), data: t})
	}
	for i, t := range proof.Trees {
		entries = append(entries, entry{name: numbered(treePrefix, i), data: t})
	}
	return entries, nil
}

func numbered(prefix string, i int) string { return fmt.Sprintf("%s%03d", prefix, i) }
