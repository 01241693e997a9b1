package bundle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"

	"github.com/klauspost/compress/zstd"
)

// A delta is one zstd frame that holds
//
//	1                 the format's number, one byte
//	size              of the tar
//	n                 spans that it has in common with base
//	n times           how many bytes that base does not have stand before the span
//	n times           how many bytes the span has
//	n times           how far further from its place in the tar than the span before it, it is in base; signed
//	the rest          all bytes that base does not have, in their order
//
// with every number a varint. Handing base to zstd as a raw dictionary would be simpler; the C library finds its
// way about a repetitive base of megabytes then, the one in Go does not: its deltas of the patch releases in
// BenchmarkDelta were up to 50 times larger.
const deltaFormat = 1

const (
	// MaxDelta is how many bytes an earlier and a later tar may have together for a delta to be made. Making one
	// takes 100 MB beside the two, and once the bytes that they do not have in common.
	MaxDelta = 2 * MaxSize

	seedSize   = 16      // bytes by which a place in base is found
	minNear    = 6       // bytes of a span on a way that was followed before
	minFar     = 24      // of one elsewhere
	turn       = 4       // bytes that a span has to have more, where to begin it costs more
	enough     = 4 << 10 // bytes of a span for which no better one is looked for
	maxTried   = 256     // places in base that are tried for one span
	fewTried   = 4       // of those, once more were tried than share for each byte so far
	share      = 2
	patience   = 512     // bytes without a span after which fewer places of the tar are looked at: one of two, then of three
	maxStep    = 8       // one of so many in the end; a span is found late then, and followed back to its beginning
	worth      = 8       // bytes of a span that make up for one without
	glance     = 1 << 18 // bytes between two looks at whether somebody waits for the result
	maxRegret  = 256     // bytes of earlier spans that a better one may take over
	maxIndexed = 8 << 20 // places in base; of a larger one, some are left out
	maxSlow    = 1 << 20 // bytes of a script that is compressed as well as can be: 60 ms of CPU for each MB
	leastSaved = 8       // a tar is to have one of so many bytes in common with base
	scriptRoom = 64      // bytes that a delta may have, unpacked, beyond those of its tar
)

// ErrNoDelta: the whole bundle is what is to be sent.
var ErrNoDelta = errors.New("no delta")

// Delta is what Patch makes tar of, with base. ErrNoDelta where the two are too large, or have next to nothing in
// common. It takes 30 ms of CPU for each MB of a patch release, and of tars that are unlike at most three times that. Of
// an end of ctx it takes notice within a second. Whether a delta is smaller than Compress(tar) is the caller's to see.
func Delta(ctx context.Context, base, tar []byte) ([]byte, error) {
	if len(base)+len(tar) > MaxDelta {
		return nil, fmt.Errorf("make delta: %w: the tars have %d and %d bytes, at most %d together are allowed", ErrNoDelta, len(base), len(tar), MaxDelta)
	}
	spans, err := inCommon(ctx, base, tar)
	if err != nil {
		return nil, fmt.Errorf("make delta: %w", err)
	}
	saved := 0
	for _, s := range spans {
		saved += s.n
	}
	if saved < len(tar)/leastSaved {
		return nil, fmt.Errorf("make delta: %w: the tars have next to nothing in common", ErrNoDelta)
	}
	script := appendScript(nil, tar, spans)
	if len(script) > len(tar)+scriptRoom {
		return nil, fmt.Errorf("make delta: %w: it is larger than the tar", ErrNoDelta)
	}
	return squeeze(script)
}

// squeeze makes an encoder for each, whose tables of up to 35 MB nobody needs in between. The size of a short frame is
// told in a single segment only.
func squeeze(script []byte) ([]byte, error) {
	level := zstd.SpeedBestCompression
	if len(script) > maxSlow {
		level = zstd.SpeedDefault
	}
	e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1), zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true), zstd.WithZeroFrames(true))
	if err != nil {
		return nil, fmt.Errorf("make delta: %w", err)
	}
	defer e.Close()
	return e.EncodeAll(script, nil), nil
}

// Patch makes a tar of the one before it and a delta. It refuses one of more than limit bytes, and holds no more
// than twice that beside what it is given. What it returns is nothing until its digest is the one that was asked for.
func Patch(base, delta []byte, limit int64) ([]byte, error) {
	raw, err := Decompress(delta, max(limit, 0)+scriptRoom)
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	tar, err := follow(base, raw, uint64(max(limit, 0)))
	if err != nil {
		return nil, fmt.Errorf("patch: %w", err)
	}
	return tar, nil
}

// follow makes the tar that a script tells of. Nothing is made before it is known to be of the announced size.
func follow(base, raw []byte, limit uint64) ([]byte, error) {
	s, err := readScript(raw)
	if err != nil {
		return nil, err
	}
	if s.size > limit {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, s.size, limit)
	}
	size := uint64(0)
	if err := s.walk(base, func(piece []byte) { size += uint64(len(piece)) }); err != nil {
		return nil, err
	}
	if size != s.size {
		return nil, fmt.Errorf("%w: it makes %d bytes, announced are %d", errScript, size, s.size)
	}
	tar := make([]byte, 0, size)
	err = s.walk(base, func(piece []byte) { tar = append(tar, piece...) })
	return tar, err
}

// span: tar[at:at+n] is base[from:from+n].
type span struct{ at, from, n int }

// way is how far a span moves: those of two that belong together have the same.
func (s span) way() int { return s.from - s.at }

func appendScript(to, tar []byte, spans []span) []byte {
	to = binary.AppendUvarint(append(to, deltaFormat), uint64(len(tar)))
	to = binary.AppendUvarint(to, uint64(len(spans)))
	at := 0
	for _, s := range spans {
		to = binary.AppendUvarint(to, uint64(s.at-at))
		at = s.at + s.n
	}
	for _, s := range spans {
		to = binary.AppendUvarint(to, uint64(s.n))
	}
	way := 0
	for _, s := range spans {
		to = binary.AppendVarint(to, int64(s.way()-way))
		way = s.way()
	}
	at = 0
	for _, s := range spans {
		to = append(to, tar[at:s.at]...)
		at = s.at + s.n
	}
	return append(to, tar[at:]...)
}

// script is a delta, unpacked; its columns hold as many numbers as there are spans.
type script struct {
	size                 uint64
	spans                uint64
	before, lengths, way []byte
	literals             []byte
}

var errScript = errors.New("this is no delta")

func readScript(raw []byte) (s script, err error) {
	if len(raw) == 0 || raw[0] != deltaFormat {
		return s, fmt.Errorf("%w of format %d; a newer hub may have made it", errScript, deltaFormat)
	}
	raw = raw[1:]
	number := func() uint64 {
		v, n := binary.Uvarint(raw)
		if n <= 0 {
			err = fmt.Errorf("%w: a number is cut off", errScript)
			return 0
		}
		raw = raw[n:]
		return v
	}
	column := func() []byte {
		begin := raw
		for range s.spans {
			if number(); err != nil {
				return nil
			}
		}
		return begin[:len(begin)-len(raw)]
	}
	s.size, s.spans = number(), number()
	s.before, s.lengths, s.way = column(), column(), column()
	s.literals = raw
	return s, err
}

// walk gives the pieces of the tar in their order.
func (s script) walk(base []byte, take func(piece []byte)) error {
	next := func(column *[]byte) uint64 { // whole: readScript saw it
		v, n := binary.Uvarint(*column)
		*column = (*column)[n:]
		return v
	}
	at, way := uint64(0), int64(0)
	for range s.spans {
		before, n := next(&s.before), next(&s.lengths)
		if before > uint64(len(s.literals)) {
			return fmt.Errorf("%w: more bytes are taken than it has", errScript)
		}
		take(s.literals[:before])
		s.literals, at = s.literals[before:], at+before
		moved, size := binary.Varint(s.way)
		s.way, way = s.way[size:], way+moved
		from := int64(at) + way
		if from < 0 || from > int64(len(base)) || n > uint64(int64(len(base))-from) {
			return fmt.Errorf("%w of this base: it takes %d bytes at %d, of %d", errScript, n, from, len(base))
		}
		if at += n; at > s.size {
			return fmt.Errorf("%w: more than the %d bytes that it announces", ErrTooLarge, s.size)
		}
		take(base[from : from+int64(n)])
	}
	take(s.literals)
	return nil
}

// places finds where base has some bytes: the last place first, and from each the one before it.
type places struct {
	base   []byte
	stride int
	shift  int
	last   []int32 // by hash; a place's number, from 1
	before []int32 // by number, from 0
}

func indexed(ctx context.Context, base []byte) (*places, error) {
	p := &places{base: base, stride: 1}
	for len(base)/p.stride > maxIndexed {
		p.stride *= 2
	}
	count := len(base)/p.stride + 1
	width := min(max(bits.Len(uint(count)), 10), 22)
	p.shift, p.last, p.before = 64-width, make([]int32, 1<<width), make([]int32, count)
	for n := 0; n*p.stride+seedSize <= len(base); n++ {
		if n%glance == 0 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		h := p.hash(base[n*p.stride:])
		p.before[n], p.last[h] = p.last[h], int32(n+1)
	}
	return p, nil
}

// hash is of seedSize bytes.
func (p *places) hash(b []byte) uint64 {
	x := binary.LittleEndian.Uint64(b)*0x9E3779B185EBCA87 ^ binary.LittleEndian.Uint64(b[8:])*0xC2B2AE3D27D4EB4F
	return (x ^ x>>29) * 0x9E3779B185EBCA87 >> p.shift
}

// alike is how many bytes two have in common from their beginning.
func alike(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for ; i+8 <= n; i += 8 {
		if d := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); d != 0 {
			return i + bits.TrailingZeros64(d)/8
		}
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// finder looks for what tar has in common with base, from its beginning to its end.
type finder struct {
	tar   []byte
	base  *places
	ways  [4]int // that were followed last, the last first
	found []span
	looks int // at places of tar
	tried int // places in base, each once more for every 64 bytes that were compared there
	vain  int // bytes without a span, less a share of those with one
}

func inCommon(ctx context.Context, base, tar []byte) ([]span, error) {
	index, err := indexed(ctx, base)
	if err != nil {
		return nil, err
	}
	f := finder{tar: tar, base: index}
	err = f.run(ctx)
	return f.found, err
}

func (f *finder) run(ctx context.Context) error {
	asked := 0 // whether it is to end
	for at := 0; at < len(f.tar); {
		if at >= asked {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			asked = at + glance
		}
		f.looks++
		s, ok := f.longest(at)
		if !ok {
			step := f.step()
			f.vain = min(f.vain+step, patience*maxStep)
			at += step
			continue
		}
		f.vain = max(f.vain-s.n/worth, 0)
		f.add(s)
		at = s.at + s.n
	}
	return nil
}

// step is to the next place of the tar to be looked at. Tars that are unlike have no spans, or a great many short ones
// that save nothing: neither are worth the time.
func (f *finder) step() int { return min(1+f.vain/patience, maxStep) }

// longest is the best span that begins at a place. What is changed is mostly small, and in a text that repeats
// itself a thousand times: where the last span would go on, is more likely right than what is longest.
func (f *finder) longest(at int) (best span, ok bool) {
	best.at = at
	try := func(from, least, more int) {
		base, last := f.base.base, max(least-1, best.n+more) // the byte that it has to have too
		if from < 0 || from+last >= len(base) || at+last >= len(f.tar) || base[from+last] != f.tar[at+last] {
			return
		}
		n := alike(f.tar[at:], base[from:])
		if f.tried += n >> 6; n > last {
			best.from, best.n = from, n
		}
	}
	try(at+f.ways[0], minNear, 0)
	for _, w := range f.ways[1:] {
		try(at+w, minNear+turn, turn)
	}
	if len(f.found) > 0 { // something was put in between
		last := f.found[len(f.found)-1]
		try(last.from+last.n, minNear, 0)
	}
	if at+seedSize > len(f.tar) {
		return best, best.n > 0
	}
	place := f.base.last[f.base.hash(f.tar[at:])]
	most := maxTried
	if f.step() > 1 || f.tried > share*(at+1<<16) {
		most = fewTried
	}
	for range most {
		if place == 0 || best.n >= enough {
			break
		}
		f.tried++
		try(int(place-1)*f.base.stride, minFar, turn)
		place = f.base.before[place-1]
	}
	return best, best.n > 0
}

// add takes a span, which may begin earlier than where it was found: in what no span has, or in the last spans.
func (f *finder) add(s span) {
	low := 0
	for k := len(f.found) - 1; k >= 0; k-- {
		last := f.found[k]
		if low = last.at + last.n; s.at-last.at > maxRegret {
			break
		}
		low = last.at
	}
	for s.at > low && s.from > 0 && f.tar[s.at-1] == f.base.base[s.from-1] {
		s.at, s.from, s.n = s.at-1, s.from-1, s.n+1
	}
	for len(f.found) > 0 {
		last := &f.found[len(f.found)-1]
		if last.at+last.n <= s.at {
			break
		}
		if s.at-last.at >= minNear {
			last.n = s.at - last.at
			break
		}
		f.found = f.found[:len(f.found)-1]
	}
	f.found = append(f.found, s)
	k := 0
	for k < len(f.ways)-1 && f.ways[k] != s.way() {
		k++
	}
	copy(f.ways[1:k+1], f.ways[:k])
	f.ways[0] = s.way()
}
