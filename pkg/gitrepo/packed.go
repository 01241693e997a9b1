package gitrepo

import (
	"bufio"
	"bytes"
	"container/list"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/klauspost/compress/flate"
)

// The formats: gitformat-pack(5), pack version 2 and index version 2.
const (
	packMagic    = "PACK\x00\x00\x00\x02"
	indexMagic   = "\xfftOc\x00\x00\x00\x02"
	indexHead    = 8 + 256*4
	wholeIndex   = 8 << 20   // bytes of an index that is held in memory
	maxOpen      = 8         // pack files
	maxChain     = 4096      // deltas on one another; git makes 50 at most
	maxBase      = 256 << 20 // bytes of what an object is a delta of, which is not handed out
	recentBytes  = 8 << 20   // of what was made on the way to an object, which the next one may be a delta of
	largestRead  = 1 << 20   // bytes of an object that is inflated from one read
	offsetDelta  = 6
	idDelta      = 7
	largeOffsets = 1 << 31
)

// pack is a pack file and its index.
type pack struct {
	name   string
	file   *os.File // nil: see database.file
	index  io.ReaderAt
	opened *os.File // the index's file where it is too large to be held
	count  int64
	fanout [256]uint32
}

// openPack reads the index. fs.ErrNotExist: it is not there.
func openPack(name string) (_ *pack, err error) {
	p := &pack{name: name}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("open pack %s: %w", name, err), p.close())
		}
	}()
	if p.opened, err = os.Open(strings.TrimSuffix(name, ".pack") + ".idx"); err != nil {
		return nil, err
	}
	info, err := p.opened.Stat()
	if err != nil {
		return nil, err
	}
	p.index = p.opened
	if info.Size() <= wholeIndex {
		text, err := io.ReadAll(io.LimitReader(p.opened, wholeIndex))
		if err != nil {
			return nil, err
		}
		p.index, err = bytes.NewReader(text), p.opened.Close()
		if p.opened = nil; err != nil {
			return nil, err
		}
	}
	var head [indexHead]byte
	if _, err := p.index.ReadAt(head[:], 0); err != nil {
		return nil, fmt.Errorf("its index: %w", err)
	}
	if string(head[:8]) != indexMagic {
		return nil, fmt.Errorf("its index is not of version 2: %w; run git index-pack on it", ErrUnsupported)
	}
	for i := range p.fanout {
		p.fanout[i] = binary.BigEndian.Uint32(head[8+4*i:])
		if i > 0 && p.fanout[i] < p.fanout[i-1] {
			return nil, errors.New("its index is damaged")
		}
	}
	p.count = int64(p.fanout[255])
	return p, nil
}

// file is the pack's, open; of all packs few are, those that were read last.
func (d *database) file(p *pack) (*os.File, error) {
	if p.file != nil {
		return p.file, nil
	}
	f, err := os.Open(p.name)
	if err != nil {
		return nil, err
	}
	var magic [8]byte
	if _, err := f.ReadAt(magic[:], 0); err != nil || string(magic[:]) != packMagic {
		return nil, errors.Join(fmt.Errorf("%s is not of version 2: %w", p.name, ErrUnsupported), err, f.Close())
	}
	p.file = f
	if d.open = append(d.open, p); len(d.open) > maxOpen {
		oldest := d.open[0]
		d.open = d.open[1:]
		d.window = window{}
		err, oldest.file = oldest.file.Close(), nil
	}
	return f, err
}

func (p *pack) close() error {
	var err error
	if p.file != nil {
		err = p.file.Close()
	}
	if p.opened != nil {
		err = errors.Join(err, p.opened.Close())
	}
	return err
}

// find is where an object begins.
func (p *pack) find(h plumbing.Hash) (at int64, ok bool, err error) {
	low, high := int64(0), int64(p.fanout[h[0]])
	if h[0] > 0 {
		low = int64(p.fanout[h[0]-1])
	}
	var id plumbing.Hash
	for low < high {
		middle := (low + high) / 2
		if _, err := p.index.ReadAt(id[:], indexHead+20*middle); err != nil {
			return 0, false, fmt.Errorf("read the index of %s: %w", p.name, err)
		}
		switch c := bytes.Compare(id[:], h[:]); {
		case c < 0:
			low = middle + 1
		case c > 0:
			high = middle
		default:
			at, err := p.offset(middle)
			return at, err == nil, err
		}
	}
	return 0, false, nil
}

// offset of the nth object: four bytes, or, where these say so, a place among those of eight.
func (p *pack) offset(n int64) (int64, error) {
	var b [8]byte
	if _, err := p.index.ReadAt(b[:4], indexHead+24*p.count+4*n); err != nil {
		return 0, fmt.Errorf("read the index of %s: %w", p.name, err)
	}
	short := binary.BigEndian.Uint32(b[:4])
	if short < largeOffsets {
		return int64(short), nil
	}
	if _, err := p.index.ReadAt(b[:], indexHead+28*p.count+8*int64(short-largeOffsets)); err != nil {
		return 0, fmt.Errorf("read the index of %s: %w", p.name, err)
	}
	return int64(binary.BigEndian.Uint64(b[:]) &^ (1 << 63)), nil
}

// packed is how an object begins in a pack.
type packed struct {
	kind    int
	size    int64 // inflated
	content int64 // where it begins
	base    int64 // of an offset delta: where its base is
	id      plumbing.Hash
}

func (d *database) head(p *pack, at int64) (packed, error) {
	f, err := d.file(p)
	if err != nil {
		return packed{}, err
	}
	b, err := d.window.read(f, at, 64) // a size of ten bytes, an offset of ten or an id of twenty
	if err != nil {
		return packed{}, err
	}
	damaged := fmt.Errorf("%s is damaged at byte %d", p.name, at)
	if len(b) == 0 {
		return packed{}, damaged
	}
	e := packed{kind: int(b[0] >> 4 & 7), size: int64(b[0] & 15)}
	i := 1
	for shift := 4; b[i-1]&0x80 != 0; shift += 7 {
		if i == len(b) || shift > 56 {
			return packed{}, damaged
		}
		e.size |= int64(b[i]&0x7f) << shift
		i++
	}
	switch e.kind {
	case offsetDelta:
		var back int64
		for first := true; ; first = false {
			if i == len(b) || back > 1<<55 {
				return packed{}, damaged
			}
			if !first {
				back = (back + 1) << 7
			}
			back |= int64(b[i] & 0x7f)
			i++
			if b[i-1]&0x80 == 0 {
				break
			}
		}
		if e.base = at - back; back <= 0 || e.base < int64(len(packMagic)) {
			return packed{}, damaged
		}
	case idDelta:
		if i+len(e.id) > len(b) {
			return packed{}, damaged
		}
		i += copy(e.id[:], b[i:])
	}
	e.content = at + int64(i)
	return e, nil
}

// unpack reads the object that begins at a place: what it is a delta of first.
func (d *database) unpack(p *pack, at, limit int64) (object, error) {
	var deltas []packed
	var obj object
	for {
		if known, ok := d.recent.get(p, at); ok {
			obj = known
			break
		}
		e, err := d.head(p, at)
		if err != nil {
			return object{}, err
		}
		if len(deltas) == maxChain {
			return object{}, fmt.Errorf("%s: more than %d deltas on one another", p.name, maxChain)
		}
		most := int64(maxBase)
		if len(deltas) == 0 {
			most = limit
		}
		switch kind := plumbing.ObjectType(e.kind); {
		case e.kind == offsetDelta:
			deltas = append(deltas, e)
			at = e.base
			continue
		case e.kind == idDelta:
			deltas = append(deltas, e)
			base, ok, err := p.find(e.id)
			if err == nil && !ok {
				err = fmt.Errorf("%s: a delta of %s, which is not in it", p.name, e.id)
			}
			if err != nil {
				return object{}, err
			}
			at = base
			continue
		case !kind.Valid() || kind.IsDelta():
			return object{}, fmt.Errorf("%s: an object of kind %d", p.name, e.kind)
		case e.size > most:
			return object{}, ErrTooLarge
		default:
			data, err := d.inflate(p, e)
			if err != nil {
				return object{}, err
			}
			obj = object{kind, data}
			if len(deltas) > 0 {
				d.recent.put(p, at, obj)
			}
		}
		break
	}
	for n := len(deltas) - 1; n >= 0; n-- {
		e := deltas[n]
		if e.size > maxBase {
			return object{}, ErrTooLarge
		}
		change, err := d.inflate(p, e)
		if err != nil {
			return object{}, err
		}
		most := int64(maxBase)
		if n == 0 {
			most = limit
		}
		data, err := patched(obj.data, change, most)
		if err != nil {
			return object{}, fmt.Errorf("%s: %w", p.name, err)
		}
		obj.data = data
		if n > 0 { // it is what the next is a delta of, and so may be others
			d.recent.put(p, deltas[n-1].base, obj)
		}
	}
	if int64(len(obj.data)) > limit { // one that was known
		return object{}, ErrTooLarge
	}
	return obj, nil
}

// inflate reads the content of an object, or of a delta.
func (d *database) inflate(p *pack, e packed) ([]byte, error) {
	f, err := d.file(p)
	if err != nil {
		return nil, err
	}
	data := make([]byte, e.size)
	// Deflate makes what cannot be compressed a little larger.
	most := e.size + e.size>>10 + 64
	var from io.Reader
	if most <= largestRead {
		b, err := d.window.read(f, e.content, int(most))
		if err != nil {
			return nil, err
		}
		from = d.inflater.bytes(b)
	} else {
		from = bufio.NewReader(io.NewSectionReader(f, e.content, 1<<62))
	}
	r, err := d.inflater.reset(from)
	if err == nil {
		_, err = io.ReadFull(r, data)
	}
	if err != nil {
		return nil, fmt.Errorf("%s at byte %d: %w", p.name, e.content, err)
	}
	return data, nil
}

// window is what was read last of a pack: objects that are needed together most often lie together.
type window struct {
	file *os.File
	at   int64
	data []byte
	room []byte
}

const leastRead = 16 << 10

// read is the n bytes of a file that begin at a place, or as many as there are, until the next call.
func (w *window) read(f *os.File, at int64, n int) ([]byte, error) {
	if f != w.file || at < w.at || at+int64(n) > w.at+int64(len(w.data)) {
		size := max(n, leastRead)
		if cap(w.room) < size {
			w.room = make([]byte, size)
		}
		got, err := f.ReadAt(w.room[:size], at)
		if err != nil && !errors.Is(err, io.EOF) {
			*w = window{}
			return nil, err
		}
		w.file, w.at, w.data = f, at, w.room[:got]
	}
	b := w.data[at-w.at:]
	return b[:min(n, len(b))], nil
}

// inflater is made once. The checksum behind the data is not looked at: the id says more.
type inflater struct {
	flate  io.ReadCloser
	source bytes.Reader
}

func (i *inflater) bytes(b []byte) io.Reader {
	i.source.Reset(b)
	return &i.source
}

// reset begins a zlib stream.
func (i *inflater) reset(from io.Reader) (io.Reader, error) {
	var head [2]byte
	if _, err := io.ReadFull(from, head[:]); err != nil {
		return nil, err
	}
	if head[0]&0x0f != 8 || head[1]&0x20 != 0 || binary.BigEndian.Uint16(head[:])%31 != 0 {
		return nil, errors.New("no deflated data")
	}
	if i.flate == nil {
		i.flate = flate.NewReader(from)
		return i.flate, nil
	}
	resetter, ok := i.flate.(flate.Resetter)
	if !ok {
		return nil, errors.New("flate: its reader cannot be used again")
	}
	return i.flate, resetter.Reset(from, nil)
}

var errDelta = errors.New("a delta is damaged")

// patched applies a delta: the sizes of base and result, then copies of the base and bytes of its own.
func patched(base, delta []byte, limit int64) ([]byte, error) {
	from, n := binary.Uvarint(delta)
	if n <= 0 || from != uint64(len(base)) {
		return nil, errDelta
	}
	delta = delta[n:]
	size, n := binary.Uvarint(delta)
	if n <= 0 {
		return nil, errDelta
	}
	if size > uint64(limit) {
		return nil, ErrTooLarge
	}
	delta = delta[n:]
	out := make([]byte, 0, size)
	for len(delta) > 0 {
		op := delta[0]
		delta = delta[1:]
		if op&0x80 == 0 {
			if op == 0 || int(op) > len(delta) || len(out)+int(op) > int(size) {
				return nil, errDelta
			}
			out, delta = append(out, delta[:op]...), delta[op:]
			continue
		}
		var place [7]byte // four bytes of an offset, three of a length, those that are there
		for i := range place {
			if op&(1<<i) == 0 {
				continue
			}
			if len(delta) == 0 {
				return nil, errDelta
			}
			place[i], delta = delta[0], delta[1:]
		}
		offset := int(binary.LittleEndian.Uint32(place[:4]))
		length := int(place[4]) | int(place[5])<<8 | int(place[6])<<16
		if length == 0 {
			length = 1 << 16
		}
		if offset+length > len(base) || len(out)+length > int(size) {
			return nil, errDelta
		}
		out = append(out, base[offset:offset+length]...)
	}
	if len(out) != int(size) {
		return nil, errDelta
	}
	return out, nil
}

// bases are objects that were made on the way to others: siblings in a pack are deltas of the same.
type bases struct {
	known map[spot]*list.Element
	order *list.List // of based, the last used first
	held  int
}

type spot struct {
	pack *pack
	at   int64
}

type based struct {
	spot spot
	obj  object
}

func (b *bases) get(p *pack, at int64) (object, bool) {
	e, ok := b.known[spot{p, at}]
	if !ok {
		return object{}, false
	}
	b.order.MoveToFront(e)
	return e.Value.(based).obj, true
}

func (b *bases) put(p *pack, at int64, obj object) {
	if len(obj.data) > recentBytes {
		return
	}
	if b.known == nil {
		b.known, b.order = map[spot]*list.Element{}, list.New()
	}
	w := spot{p, at}
	if _, ok := b.known[w]; ok {
		return
	}
	b.known[w] = b.order.PushFront(based{w, obj})
	for b.held += len(obj.data); b.held > recentBytes; {
		b.drop(b.order.Back())
	}
}

func (b *bases) drop(e *list.Element) {
	was := b.order.Remove(e).(based)
	delete(b.known, was.spot)
	b.held -= len(was.obj.data)
}

func (b *bases) forget(p *pack) {
	for w, e := range b.known {
		if w.pack == p {
			b.drop(e)
		}
	}
}
