package depot

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wheelwright-dev/wheelwright/hub/internal/blob"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// hub is the part of a hub that a depot is.
type hub struct {
	*Depot
	t      *testing.T
	dir    string
	wholes *blob.Store
	log    *lines
}

// lines are what was logged.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) count(text string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), text)
}

func start(t *testing.T, dir string) *hub {
	t.Helper()
	h := &hub{t: t, dir: dir, log: &lines{}}
	var err error
	if h.wholes, err = blob.Open(filepath.Join(dir, "bundles")); err != nil {
		t.Fatal(err)
	}
	deltas, err := blob.OpenDeltas(filepath.Join(dir, "deltas"), 100, 1<<30)
	if err != nil {
		t.Fatal(err)
	}
	h.Depot = New(Config{Wholes: h.wholes, Deltas: deltas, Log: slog.New(slog.NewTextHandler(h.log, nil))})
	t.Cleanup(func() { h.Close() })
	return h
}

func (h *hub) put(tar []byte) fleet.Digest {
	h.t.Helper()
	d := bundle.DigestOf(tar)
	if err := h.wholes.Put(d, bundle.Compress(tar)); err != nil {
		h.t.Fatal(err)
	}
	return d
}

func (h *hub) get(d fleet.Digest, bases ...fleet.Digest) *Encoding {
	h.t.Helper()
	e, err := h.Get(h.t.Context(), d, bases, "")
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { e.Close() })
	return e
}

// bytes is all of an encoding from a place on, in small chunks.
func (h *hub) bytes(e *Encoding, at int64) []byte {
	h.t.Helper()
	var all []byte
	for {
		chunk, err := e.Chunk(at, 1000)
		if err == io.EOF {
			return all
		}
		if err != nil {
			h.t.Fatal(err)
		}
		all, at = append(all, chunk...), at+int64(len(chunk))
	}
}

// files of deltas on the disk.
func (h *hub) files() []string {
	h.t.Helper()
	found, err := filepath.Glob(filepath.Join(h.dir, "deltas", "*.delta"))
	if err != nil {
		h.t.Fatal(err)
	}
	return found
}

// text is a tar, nearly: what comes of n lines.
func text(n int, version string) []byte {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "line %d %d of what does not change\n", i, i*i)
		if i%100 == 0 {
			fmt.Fprintf(&b, "image: app:%s\n", version)
		}
	}
	return []byte(b.String())
}

func noise(n int) []byte {
	b := make([]byte, n)
	random := rand.NewChaCha8([32]byte{1})
	_, _ = random.Read(b)
	return b
}

func TestTwoHundredAtOnceHaveOneDeltaMade(t *testing.T) {
	h := start(t, t.TempDir())
	old, tar := text(2000, "1.0.0"), text(2000, "1.0.1")
	base, d := h.put(old), h.put(tar)
	got := make([]*Encoding, 200)
	var all sync.WaitGroup
	for i := range got {
		all.Go(func() { got[i], _ = h.Get(t.Context(), d, []fleet.Digest{base}, "") })
	}
	all.Wait()
	for _, e := range got {
		if e == nil || e.Base != base || &e.data[0] != &got[0].data[0] {
			t.Fatalf("got %+v, which is no delta or shares no bytes", e)
		}
	}
	if n := h.Built(); n != 1 {
		t.Errorf("%d deltas were made", n)
	}
	delta := h.bytes(got[0], 0)
	if made, err := bundle.Patch(old, delta, int64(len(tar))); err != nil || !bytes.Equal(made, tar) {
		t.Errorf("it makes %d bytes, %v", len(made), err)
	}
	whole := h.get(d)
	if whole.Base != "" || len(delta)*10 > int(whole.Size) {
		t.Errorf("%d bytes of delta, whole %d on %q", len(delta), whole.Size, whole.Base)
	}
	if string(bundle.DigestOf(delta)) != got[0].ID || string(bundle.DigestOf(h.bytes(whole, 0))) != whole.ID {
		t.Error("an encoding's name is not the sum of its bytes")
	}
}

func TestAfterARestartNothingIsMadeAgain(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir)
	base, d, other := h.put(text(2000, "1.0.0")), h.put(text(2000, "1.0.1")), h.put(noise(10_000))
	e := h.get(d, base)
	if worthless := h.get(other, base); worthless.Base != "" || h.Built() != 2 {
		t.Errorf("a delta on %q, %d made", worthless.Base, h.Built())
	}
	h.Close()
	h = start(t, dir)
	again := h.get(d, base)
	if again.ID != e.ID || again.Base != base || h.get(other, base).Base != "" || h.Built() != 0 {
		t.Errorf("%+v, before %+v; %d made", again, e, h.Built())
	}
	// The next base is taken where there is no delta on one, and none where a bundle would be its own.
	if e := h.get(other, other, base, d); e.Base != "" {
		t.Errorf("on %q", e.Base)
	}
	if e := h.get(d, d, base); e.Base != base {
		t.Errorf("on %q", e.Base)
	}
}

func TestADamagedDeltaIsMadeAnew(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir)
	base, d := h.put(text(2000, "1.0.0")), h.put(text(2000, "1.0.1"))
	e := h.get(d, base)
	want := h.bytes(e, 0)
	h.Close()
	for _, damage := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-1] },
		func(b []byte) []byte { return b[:7] },
		func(b []byte) []byte { return nil },
	} {
		file := h.files()[0]
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, damage(b), 0o600); err != nil {
			t.Fatal(err)
		}
		h = start(t, dir)
		if got := h.bytes(h.get(d, base), 0); !bytes.Equal(got, want) || h.Built() != 1 || h.log.count("damaged") != 1 {
			t.Errorf("%d bytes, want %d; %d made; log: %s", len(got), len(want), h.Built(), h.log.text.String())
		}
		h.Close()
		if h = start(t, dir); h.get(d, base).ID != e.ID || h.Built() != 0 {
			t.Errorf("%d made: what was damaged is not replaced", h.Built())
		}
		h.Close()
	}
}

func TestDeltasThatCannotBeStoredAreSentAllTheSame(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir)
	base := h.put(text(2000, "1.0.0"))
	if err := os.RemoveAll(filepath.Join(dir, "deltas")); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if e := h.get(h.put(text(2000, fmt.Sprint(i))), base); e.Base != base {
			t.Errorf("the whole, of %d bytes", e.Size)
		}
	}
	if n := h.log.count("level=ERROR"); n != 1 {
		t.Errorf("said %d times: %s", n, h.log.text.String())
	}
}

func TestOfADamagedBundleNoDeltaIsMade(t *testing.T) {
	h := start(t, t.TempDir())
	d := h.put(text(2000, "1.0.1"))
	wrong, none, lost := bundle.DigestOf([]byte("a")), bundle.DigestOf([]byte("b")), bundle.DigestOf([]byte("c"))
	for d, z := range map[fleet.Digest][]byte{wrong: bundle.Compress(text(10, "1.0.0")), none: []byte("no zstd")} {
		if err := h.wholes.Put(d, z); err != nil {
			t.Fatal(err)
		}
	}
	for _, base := range []fleet.Digest{wrong, none, lost} {
		for range 2 {
			if e := h.get(d, base); e.Base != "" {
				t.Errorf("a delta on %s", e.Base)
			}
		}
	}
	if n := h.log.count("level=ERROR"); n != 3 || len(h.files()) != 0 {
		t.Errorf("said %d times, %v stored: %s", n, h.files(), h.log.text.String())
	}
	if _, err := h.Get(t.Context(), lost, nil, ""); !errors.Is(err, blob.ErrNotFound) {
		t.Errorf("got %v", err)
	}
}

func TestALargeBundleIsReadFromTheDisk(t *testing.T) {
	h := start(t, t.TempDir())
	tar := noise(largest + 1<<20)
	d := h.put(tar)
	for range 2 {
		e := h.get(d)
		z := h.bytes(e, 0)
		if string(bundle.DigestOf(z)) != e.ID || int64(len(z)) != e.Size || e.data != nil {
			t.Errorf("%d bytes of %d", len(z), e.Size)
		}
		if rest := h.bytes(e, e.Size-12_345); !bytes.Equal(rest, z[len(z)-12_345:]) {
			t.Errorf("%d bytes from a place on", len(rest))
		}
	}
	if h.kept.bytes > 10*about {
		t.Errorf("%d bytes are kept of it", h.kept.bytes)
	}
}

func TestABusySlotIsWaitedForAndNotForLong(t *testing.T) {
	dir := t.TempDir()
	h := start(t, dir)
	base, d := h.put(text(2000, "1.0.0")), h.put(text(2000, "1.0.1"))
	h.Close()
	synctest.Test(t, func(t *testing.T) {
		h := start(t, dir)
		h.slot <- struct{}{}
		begin := time.Now()
		if e := h.get(d, base); e.Base != "" || time.Since(begin) != Wait {
			t.Errorf("on %q after %s", e.Base, time.Since(begin))
		}
		synctest.Wait()
		go func() { time.Sleep(Wait / 2); <-h.slot }()
		begin = time.Now()
		if e := h.get(d, base); e.Base != base || time.Since(begin) != Wait/2 {
			t.Errorf("on %q after %s", e.Base, time.Since(begin))
		}
		// What was begun already: a bundle is not sent as something else than before.
		whole := h.get(d)
		if e, err := h.Get(t.Context(), d, []fleet.Digest{base}, whole.ID); err != nil || e.Base != "" {
			t.Errorf("%+v, %v", e, err)
		}
		h.Close()
		if e := h.get(d, d); e.Base != "" {
			t.Error("a delta after the end")
		}
	})
}

func TestTheEndDoesNotWaitForASlot(t *testing.T) {
	h := start(t, t.TempDir())
	base, d := h.put(text(2000, "1.0.0")), h.put(text(2000, "1.0.1"))
	h.slot <- struct{}{}
	got := make(chan *Encoding)
	go func() { e, _ := h.Get(t.Context(), d, []fleet.Digest{base}, ""); got <- e }()
	for begun := false; !begun; {
		h.mu.Lock()
		begun = len(h.making) == 1
		h.mu.Unlock()
	}
	h.Close()
	if e := <-got; e == nil || e.Base != "" {
		t.Errorf("got %+v", e)
	}
}

func TestTheEndDoesNotWaitForADeltaOfMuch(t *testing.T) {
	h := start(t, t.TempDir())
	all := noise(48 << 20)
	base, d := h.put(all[:24<<20]), h.put(all[24<<20:])
	got := make(chan *Encoding)
	go func() { e, _ := h.Get(t.Context(), d, []fleet.Digest{base}, ""); got <- e }()
	for h.Built() == 0 { // it would go on for seconds
		runtime.Gosched()
	}
	h.Close()
	if e := <-got; e == nil || e.Base != "" {
		t.Errorf("got %+v", e)
	}
	if len(h.files()) != 0 || h.log.count("level=ERROR") != 0 {
		t.Errorf("%v stored of what did not come to an end: %s", h.files(), h.log.text.String())
	}
	// Another time it does.
	h = start(t, h.dir)
	if e := h.get(d, base); e.Base != "" || len(h.files()) != 1 {
		t.Errorf("on %q, %v stored", e.Base, h.files())
	}
}

func TestMemoryIsBounded(t *testing.T) {
	m := newMemory(10 * (about + 1000))
	name := func(i int) pair { return pair{digest: fleet.Digest(fmt.Sprint(i))} }
	for i := range 100 {
		m.put(name(i), &Encoding{data: make([]byte, 1000)})
		if _, found := m.get(name(0)); !found {
			t.Fatalf("what is used all the time is gone after %d", i)
		}
	}
	if len(m.all) != 10 || m.bytes != 10*(about+1000) {
		t.Errorf("%d are kept, %d bytes", len(m.all), m.bytes)
	}
	m.put(name(0), nil)
	if e, found := m.get(name(0)); !found || e != nil || m.bytes != 9*(about+1000)+about {
		t.Errorf("%v, %v, %d bytes", e, found, m.bytes)
	}
	m.put(name(1000), &Encoding{data: make([]byte, largest+1)})
	if _, found := m.get(name(1000)); found || len(m.all) != 10 {
		t.Error("what is too large is kept")
	}
}
