package blob

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const digest = fleet.Digest("sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef")

func open(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func read(t *testing.T, s *Store, d fleet.Digest) []byte {
	t.Helper()
	r, size, err := s.Get(d)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	b, err := io.ReadAll(r)
	if err != nil || int64(len(b)) != size {
		t.Fatalf("%d bytes of %d, %v", len(b), size, err)
	}
	return b
}

func TestPutAndGetAcrossRestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "bundles")
	s := open(t, dir)
	if has, err := s.Has(digest); has || err != nil {
		t.Errorf("before: %v, %v", has, err)
	}
	if _, _, err := s.Get(digest); !errors.Is(err, ErrNotFound) {
		t.Errorf("before: %v", err)
	}
	if err := s.Put(digest, []byte("compressed")); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(digest, []byte("other bytes of the same content")); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir)
	if has, err := again.Has(digest); !has || err != nil {
		t.Errorf("after: %v, %v", has, err)
	}
	if got := read(t, again, digest); string(got) != "compressed" {
		t.Errorf("got %q", got)
	}
}

func TestNothingHalfWrittenIsSeen(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, partPrefix+"1") // as of a hub that was killed while it wrote
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := open(t, dir)
	if _, err := os.Stat(left); err == nil {
		t.Error("the half file is still there")
	}
	// A reader beside the writer sees nothing or all.
	content := bytes.Repeat([]byte("x"), 4<<20)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := s.Put(digest, content); err != nil {
				t.Error(err)
			}
		})
	}
	for {
		has, err := s.Has(digest)
		if err != nil {
			t.Fatal(err)
		}
		if has {
			break
		}
	}
	if got := read(t, s, digest); len(got) != len(content) {
		t.Errorf("%d bytes, want %d", len(got), len(content))
	}
	wg.Wait()
	if files, err := os.ReadDir(dir); err != nil || len(files) != 1 {
		t.Errorf("%v, %v", files, err)
	}
}

func TestBadInput(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for _, d := range []fleet.Digest{"", "sha256:", "sha256:../../etc/passwd", "sha512:" + fleet.Digest(strings.Repeat("a", 64))} {
		if err := s.Put(d, []byte("x")); err == nil {
			t.Errorf("%q: want an error", d)
		}
		if _, _, err := s.Get(d); err == nil {
			t.Errorf("%q: want an error", d)
		}
		if _, err := s.Has(d); err == nil {
			t.Errorf("%q: want an error", d)
		}
	}
	if err := s.Put(digest, nil); err == nil {
		t.Error("an empty bundle: want an error")
	}
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(digest, []byte("x")); err == nil || !strings.Contains(err.Error(), string(digest)) {
		t.Errorf("the folder is gone: %v", err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(file); err == nil {
		t.Error("a file in the place of the folder: want an error")
	}
}
