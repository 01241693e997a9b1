package bundle

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// The format: POSIX.1-2017, pax, "ustar Interchange Format" and "pax Header Block".
const (
	blockSize = 512
	nameSize  = 100
	paxName   = "pax_header"
	paxKey    = " path="
	maxPax    = maxPath + 32
	maxSize   = 1<<33 - 1 // eleven octal digits
)

var zeros [2 * blockSize]byte // never written

func padded(n int) int { return (n + blockSize - 1) / blockSize * blockSize }

func needsPax(name string) bool {
	if len(name) > nameSize {
		return true
	}
	for i := range len(name) {
		if name[i] >= 0x80 {
			return true
		}
	}
	return false
}

func paxRecord(name string) string {
	n := len(paxKey) + len(name) + 1
	size := n + len(strconv.Itoa(n))
	if len(strconv.Itoa(size)) > len(strconv.Itoa(n)) {
		size = n + len(strconv.Itoa(size))
	}
	return strconv.Itoa(size) + paxKey + name + "\n"
}

func headerSize(name string) int {
	if !needsPax(name) {
		return blockSize
	}
	return blockSize + padded(len(paxRecord(name))) + blockSize
}

// putHeader writes what is not zero of a header into as many zeros as headerSize says.
func putHeader(to []byte, name string, size int, executable bool) {
	mode := "0000644"
	if executable {
		mode = "0000755"
	}
	if needsPax(name) {
		r := paxRecord(name)
		putBlock(to, paxName, "0000644", len(r), 'x')
		copy(to[blockSize:], r)
		to = to[blockSize+padded(len(r)):]
	}
	putBlock(to, name[:min(len(name), nameSize)], mode, size, '0')
}

func putBlock(h []byte, name, mode string, size int, kind byte) {
	copy(h, name)
	copy(h[100:], mode)
	copy(h[108:], "0000000\x000000000") // owner and group
	octal(h[124:135], size)
	copy(h[136:], "00000000000") // mtime
	h[155], h[156] = ' ', kind
	copy(h[257:], "ustar\x0000")
	copy(h[329:], "0000000\x000000000") // device numbers
	sum := 7 * int(' ')                 // where the checksum will stand
	for _, field := range [][]byte{h[:len(name)], h[100:157], h[257:265], h[329:344]} {
		for _, b := range field {
			sum += int(b)
		}
	}
	octal(h[148:154], sum)
}

func octal(field []byte, v int) {
	for i := len(field) - 1; i >= 0; i-- {
		field[i] = '0' + byte(v&7)
		v >>= 3
	}
}

// readEntry reads the entry that tar begins with; nil at a proper end. It takes from the headers no more
// than name, size and mode, writes the headers that these would have, and compares.
func readEntry(tar []byte) (*entry, []byte, error) {
	if len(tar) < blockSize {
		return nil, nil, errors.New("it ends too early")
	}
	if tar[0] == 0 {
		if !bytes.Equal(tar, zeros[:]) {
			return nil, nil, errors.New("the end is not two zero blocks, or something follows it")
		}
		return nil, nil, nil
	}
	name, head := cstring(tar[:nameSize]), tar[:blockSize]
	if tar[156] == 'x' {
		size, err := sizeOf(head, len(tar)-2*blockSize)
		if err != nil {
			return nil, nil, err
		}
		if size > maxPax {
			return nil, nil, fmt.Errorf("a PAX header of %d bytes", size)
		}
		_, path, ok := strings.Cut(string(tar[blockSize:blockSize+size]), paxKey)
		if at := blockSize + padded(size); !ok || len(tar) < at+blockSize {
			return nil, nil, errors.New("a PAX header without a path, or with nothing after it")
		} else {
			name, head = strings.TrimSuffix(path, "\n"), tar[at:at+blockSize]
		}
	}
	headers := headerSize(name)
	size, err := sizeOf(head, len(tar)-headers)
	if err != nil {
		return nil, nil, fmt.Errorf("%q: %w", name, err)
	}
	e := &entry{name: name, executable: string(head[100:107]) == "0000755", data: tar[headers : headers+size : headers+size]}
	canonical := make([]byte, headers)
	if putHeader(canonical, name, size, e.executable); !bytes.Equal(tar[:headers], canonical) {
		return nil, nil, fmt.Errorf("%q is no regular file with a canonical header", name)
	}
	end := headers + padded(size)
	if end > len(tar) || !bytes.Equal(tar[headers+size:end], zeros[:end-headers-size]) {
		return nil, nil, fmt.Errorf("%q is not padded with zeros", name)
	}
	return e, tar[end:], nil
}

func cstring(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

// sizeOf reads a header's size field; what the tar cannot hold is refused before it is believed.
func sizeOf(head []byte, room int) (int, error) {
	n, err := strconv.ParseUint(string(head[124:135]), 8, 63)
	if err != nil {
		return 0, errors.New("the size is not eleven octal digits")
	}
	if n > maxSize || int64(n) > int64(max(room, 0)) {
		return 0, fmt.Errorf("a size of %d bytes, %d are left", n, max(room, 0))
	}
	return int(n), nil
}
