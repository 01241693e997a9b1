package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

var at = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func written(t *testing.T) []byte {
	t.Helper()
	var b bytes.Buffer
	w := NewWriter(&b, at, "v1.2.3")
	for name, content := range map[string]string{"hub.db": strings.Repeat("record", 1000)} {
		if err := w.Add(name, int64(len(content)), strings.NewReader(content+"more than its size")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Add("bundles/ab.tar.zst", 3, strings.NewReader("abc")); err != nil {
		t.Fatal(err)
	}
	w.Missing("the bundle of shop 1.0.0")
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func read(data []byte) (Manifest, map[string]string, error) {
	all := map[string]string{}
	m, err := Read(bytes.NewReader(data), func(f File, r io.Reader) error {
		if f.Name == "bundles/ab.tar.zst" {
			return nil // left unread
		}
		content, err := io.ReadAll(r)
		all[f.Name] = string(content)
		return err
	})
	return m, all, err
}

func TestWhatIsReadIsWhatWasWritten(t *testing.T) {
	m, all, err := read(written(t))
	if err != nil || !m.At.Equal(at) || m.HubVersion != "v1.2.3" || m.Keys || len(m.Missing) != 1 || m.Size() != 6003 || !m.Has("bundles/ab.tar.zst") || m.Has("x") {
		t.Errorf("got %+v, %v", m, err)
	}
	if all["hub.db"] != strings.Repeat("record", 1000) {
		t.Errorf("content of %d bytes", len(all["hub.db"]))
	}
	var again bytes.Buffer
	w := NewWriter(&again, at.Add(time.Hour), "other")
	if err := w.Copy(bytes.NewReader(written(t))); err != nil {
		t.Fatal(err)
	}
	w.Keys()
	if err := w.Add("authority/authority.pem", 1, strings.NewReader("k")); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if m, _, err := read(again.Bytes()); err != nil || !m.At.Equal(at) || m.HubVersion != "v1.2.3" || !m.Keys || len(m.Files) != 3 || len(m.Missing) != 1 {
		t.Errorf("a copy with more: %+v, %v", m, err)
	}
}

// However a backup was cut short or changed, it is not taken for a whole one.
func TestABackupThatIsNotWholeIsRefused(t *testing.T) {
	good := written(t)
	for n := 0; n < len(good)-2048; n += 100 { // the last blocks are a tar's end, and say nothing
		if _, _, err := read(good[:n]); !errors.Is(err, ErrBroken) {
			t.Fatalf("cut to %d of %d bytes: %v", n, len(good), err)
		}
	}
	flipped := 0
	for n := 0; n < len(good); n += 37 {
		bad := bytes.Clone(good)
		bad[n] ^= 0x04
		_, all, err := read(bad)
		if err == nil && all["hub.db"] != strings.Repeat("record", 1000) {
			t.Fatalf("byte %d changed: taken for whole", n)
		}
		if err != nil {
			flipped++
		}
	}
	if flipped < 100 {
		t.Errorf("of the changed ones only %d were refused", flipped)
	}
	for _, name := range []string{"../x", "/etc/x", "a/../../x", `a\b`, "", "."} {
		var b bytes.Buffer
		w := tar.NewWriter(&b)
		if err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Size: 0, Mode: 0o600}); err != nil {
			continue
		}
		_ = w.Close()
		if _, _, err := read(b.Bytes()); !errors.Is(err, ErrBroken) {
			t.Errorf("name %q: %v", name, err)
		}
		if NewWriter(io.Discard, at, "").Add(name, 0, strings.NewReader("")) == nil {
			t.Errorf("name %q was written", name)
		}
	}
}
