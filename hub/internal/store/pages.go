package store

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt maps its file and follows what stands in it without a look at the bounds: a damaged page makes it
// read beyond the mapping, allocate without end or walk in circles, none of which can be caught. So
// the file is read here first, in bbolt's own format (go.etcd.io/bbolt/internal/common: page.go, meta.go,
// bucket.go), with every offset, length and page number checked.
const (
	pageHeader    = 16 // id uint64, flags uint16, count uint16, overflow uint32
	pageElement   = 16 // of a branch: pos, ksize uint32, page uint64; of a leaf: flags, pos, ksize, vsize uint32
	bucketHeader  = 16 // root uint64, sequence uint64
	metaLength    = 64
	metaMagic     = 0xED0CDAED
	metaVersion   = 2
	flagBranch    = 0x01
	flagLeaf      = 0x02
	flagFreelist  = 0x10
	flagBucket    = 0x01 // of a leaf's element
	noFreelist    = ^uint64(0)
	manyFree      = 0xFFFF // in a free list's count: the count is the first number of the list
	smallestPage  = 1 << 10
	largestPage   = 16 << 20
	maxPageLength = 1 << 30
)

var order = binary.NativeEndian // bbolt's files are those of the machine

// meta is one of the two pages that a file begins with.
type meta struct {
	pageSize                    int64
	root, freelist, pages, txid uint64
}

func readMeta(f io.ReaderAt, at int64) (m meta, ok bool) {
	b := make([]byte, metaLength)
	if _, err := f.ReadAt(b, at+pageHeader); err != nil {
		return m, false
	}
	sum := fnv.New64a()
	_, _ = sum.Write(b[:56])
	if order.Uint32(b) != metaMagic || order.Uint32(b[4:]) != metaVersion || order.Uint64(b[56:]) != sum.Sum64() {
		return m, false
	}
	return meta{
		pageSize: int64(order.Uint32(b[8:])), root: order.Uint64(b[16:]), freelist: order.Uint64(b[32:]),
		pages: order.Uint64(b[40:]), txid: order.Uint64(b[48:]),
	}, true
}

// newestMeta is the one that bbolt will use.
func newestMeta(f io.ReaderAt) (m meta, ok bool) {
	m, ok = readMeta(f, 0)
	if ok {
		if second, good := readMeta(f, m.pageSize); good && second.txid > m.txid {
			m = second
		}
		return m, true
	}
	for size := int64(smallestPage); size <= largestPage; size *= 2 {
		if m, ok = readMeta(f, size); ok && m.pageSize == size {
			return m, true
		}
	}
	return m, false
}

// checkPages reads every page of a file that is in use. A file without a good first page is left for
// bbolt to name.
func checkPages(f io.ReaderAt, size int64) error {
	m, ok := newestMeta(f)
	if !ok {
		return nil
	}
	if m.pageSize < smallestPage || m.pageSize > largestPage || m.pages < 4 || m.pages > uint64(size/m.pageSize) {
		return fmt.Errorf("has %d bytes, its first page says %d pages of %d", size, m.pages, m.pageSize)
	}
	c := &pageCheck{file: f, meta: m, seen: map[uint64]bool{0: true, 1: true}}
	if m.freelist != noFreelist {
		if err := c.freelist(m.freelist); err != nil {
			return err
		}
	}
	return c.tree(m.root)
}

type pageCheck struct {
	file io.ReaderAt
	meta meta
	seen map[uint64]bool
}

// page reads a page with what overflows it, each at most once.
func (c *pageCheck) page(id uint64) (data []byte, flags uint16, count int, err error) {
	bad := func(format string, args ...any) ([]byte, uint16, int, error) {
		return nil, 0, 0, fmt.Errorf("page %d: "+format, append([]any{id}, args...)...)
	}
	if id < 2 || id >= c.meta.pages {
		return bad("out of range, the file has %d", c.meta.pages)
	}
	header := make([]byte, pageHeader)
	if _, err := c.file.ReadAt(header, int64(id)*c.meta.pageSize); err != nil {
		return bad("%w", err)
	}
	overflow := uint64(order.Uint32(header[12:]))
	if order.Uint64(header) != id || id+overflow >= c.meta.pages || (overflow+1)*uint64(c.meta.pageSize) > maxPageLength {
		return bad("its header says page %d and %d more", order.Uint64(header), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if c.seen[i] {
			return bad("used twice")
		}
		c.seen[i] = true
	}
	data = make([]byte, (int64(overflow)+1)*c.meta.pageSize)
	if _, err := c.file.ReadAt(data, int64(id)*c.meta.pageSize); err != nil {
		return bad("%w", err)
	}
	return data, order.Uint16(header[8:]), int(order.Uint16(header[10:])), nil
}

func (c *pageCheck) freelist(id uint64) error {
	data, flags, count, err := c.page(id)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	list, n := data[pageHeader:], uint64(count)
	if count == manyFree {
		n, list = order.Uint64(list), list[8:]
	}
	if flags != flagFreelist || n > uint64(len(list)/8) {
		return fmt.Errorf("free list: page %d: kind %#x with %d entries", id, flags, n)
	}
	for i := range n {
		if free := order.Uint64(list[8*i:]); free < 2 || free >= c.meta.pages {
			return fmt.Errorf("free list: names page %d of %d", free, c.meta.pages)
		}
	}
	return nil
}

// tree checks a page and all below it.
func (c *pageCheck) tree(id uint64) error {
	data, flags, count, err := c.page(id)
	if err != nil {
		return err
	}
	switch flags {
	case flagLeaf:
		err = c.leaf(data, count)
	case flagBranch:
		err = c.branch(data, count)
	default:
		err = fmt.Errorf("kind %#x", flags)
	}
	if err != nil {
		return fmt.Errorf("page %d: %w", id, err)
	}
	return nil
}

var errBounds = errors.New("an entry lies outside of it")

// within cuts [at+pos, at+pos+length) out of data.
func within(data []byte, at int, pos, length uint32) ([]byte, error) {
	from := int64(at) + int64(pos)
	if to := from + int64(length); from <= int64(len(data)) && to <= int64(len(data)) {
		return data[from:to], nil
	}
	return nil, errBounds
}

func (c *pageCheck) branch(data []byte, count int) error {
	if count == 0 {
		return errors.New("a branch without entries")
	}
	for i := range count {
		at := pageHeader + i*pageElement
		element, err := within(data, at, 0, pageElement)
		if err != nil {
			return err
		}
		if _, err := within(data, at, order.Uint32(element), order.Uint32(element[4:])); err != nil {
			return err
		}
		if err := c.tree(order.Uint64(element[8:])); err != nil {
			return err
		}
	}
	return nil
}

func (c *pageCheck) leaf(data []byte, count int) error {
	for i := range count {
		at := pageHeader + i*pageElement
		element, err := within(data, at, 0, pageElement)
		if err != nil {
			return err
		}
		flags, pos, ksize, vsize := order.Uint32(element), order.Uint32(element[4:]), order.Uint32(element[8:]), order.Uint32(element[12:])
		if int64(ksize)+int64(vsize) > int64(len(data)) {
			return errBounds
		}
		entry, err := within(data, at, pos, ksize+vsize)
		switch {
		case err != nil:
			return err
		case flags == 0:
			continue
		case flags != flagBucket:
			return fmt.Errorf("an entry of kind %#x", flags)
		}
		if err := c.bucket(entry[ksize:]); err != nil {
			return fmt.Errorf("bucket %q: %w", entry[:ksize], err)
		}
	}
	return nil
}

// bucket checks a bucket's value: where its tree begins, or, for a small one, its only page in place.
func (c *pageCheck) bucket(value []byte) error {
	if len(value) < bucketHeader {
		return errBounds
	}
	if root := order.Uint64(value); root != 0 {
		return c.tree(root)
	}
	inline := value[bucketHeader:]
	if len(inline) < pageHeader || order.Uint16(inline[8:]) != flagLeaf {
		return errors.New("its page is none")
	}
	return c.leaf(inline, int(order.Uint16(inline[10:])))
}
