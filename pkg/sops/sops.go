// Package sops reads files that were encrypted with SOPS for age recipients, and seals what was made of them.
//
// It is a reader of the format of our own, strict where the tool is lenient: the tool's library brings the
// clients of every cloud's key service into a binary, and this reads exactly what a provider's overlay may hold:
// YAML (with several documents), JSON, dotenv and the binary form, for age. A file's message authentication code
// is checked before anything of it is handed out. It never writes a file, and it encrypts for nobody but the
// recipients of the identities at hand.
package sops

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"

	"filippo.io/age"
)

// ErrKey: there is no identity that opens the file, or none that can be used.
var ErrKey = errors.New("it cannot be decrypted with the identities at hand")

// ErrFile: the file is not what was encrypted, or in a form that is not read here.
var ErrFile = errors.New("it is not what SOPS encrypted")

// Keys are files with age identities. The zero Keys: there are none.
type Keys struct {
	Age []string // absolute paths: one identity a line, as age-keygen writes them
}

// None reports that there are none.
func (k Keys) None() bool { return len(k.Age) == 0 }

const maxKeys = 64 << 10 // bytes of a file of identities

// Ring are identities in memory.
type Ring struct {
	identities []age.Identity
	recipients []age.Recipient // those of the identities that things are sealed for
	names      []string        // the recipients', in text
	files      []string
}

// Open reads the files as they are now. As with ssh's keys, a file that others than its owner can read is an error:
// who can read it can read every secret.
func (k Keys) Open() (*Ring, error) {
	r := &Ring{files: k.Age}
	var late []age.Recipient // of another kind, which cannot stand beside the first in one file
	for _, path := range k.Age {
		ids, err := readIdentities(path)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrKey, err)
		}
		r.identities = append(r.identities, ids...)
		for _, id := range ids {
			switch id := id.(type) {
			case *age.X25519Identity:
				r.recipients, r.names = append(r.recipients, id.Recipient()), append(r.names, id.Recipient().String())
			case *age.HybridIdentity:
				late, r.names = append(late, id.Recipient()), append(r.names, id.Recipient().String())
			}
		}
	}
	if len(r.recipients) == 0 {
		r.recipients = late
	}
	return r, nil
}

// exposed: everybody can read it, or its owner's group where that is us. A file that is another's, as those of a Secret
// mounted for a group are, has to be the group's to be read at all.
func exposed(info os.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	mine := !ok || int(stat.Uid) == os.Geteuid()
	return info.Mode().Perm()&0o007 != 0 || mine && info.Mode().Perm()&0o070 != 0
}

func readIdentities(path string) ([]age.Identity, error) {
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read age identities: %w; make them with: age-keygen -o %s", err, path)
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s: is no file; name one with age identities", path)
	case info.Size() > maxKeys:
		return nil, fmt.Errorf("%s: has %d KiB, more than %d: is it a file of age identities?", path, info.Size()>>10, maxKeys>>10)
	case exposed(info):
		return nil, fmt.Errorf("%s: others than its owner can read it (mode %04o); change that: chmod 600 %s", path, info.Mode().Perm(), path)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read age identities: %w", err)
	}
	ids, err := age.ParseIdentities(bytes.NewReader(text))
	if err != nil { // its text may quote the line
		return nil, fmt.Errorf("%s: holds something else than age identities; each line is one that begins with AGE-SECRET-KEY-, or a comment with #", path)
	}
	return ids, nil
}

// has names the recipients whose identities are at hand.
func (r *Ring) has() string {
	if r == nil || len(r.names) == 0 {
		return "there are none"
	}
	return "there are those of " + strings.Join(r.names, ", ")
}

// Plain is a file that was decrypted.
type Plain struct {
	Data   []byte
	Values []string // those that were encrypted, as text
}

// Decrypt decrypts a file, if it is one that SOPS encrypted; encrypted tells whether it is. path is for messages.
// A nil Ring has no identities. Errors are ErrKey or ErrFile, and name path and what to do.
func (r *Ring) Decrypt(path string, data []byte) (p Plain, encrypted bool, err error) {
	form := formOf(path, data)
	if form == plain {
		return Plain{}, false, nil
	}
	p, err = r.open(form, data)
	if err != nil {
		return Plain{}, true, fmt.Errorf("%s: %w", path, err)
	}
	return p, true, nil
}

func (r *Ring) open(form form, data []byte) (Plain, error) {
	t, err := form.parse(data)
	if err != nil {
		return Plain{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	if err := t.meta.check(); err != nil {
		return Plain{}, err
	}
	key, err := r.dataKey(t.meta)
	if err != nil {
		return Plain{}, err
	}
	values, err := t.decrypt(key)
	if err != nil {
		return Plain{}, fmt.Errorf("%w: %w; encrypt it again: sops edit, or sops --encrypt", ErrFile, err)
	}
	out, err := form.write(t)
	if err != nil {
		return Plain{}, fmt.Errorf("%w: %w", ErrFile, err)
	}
	return Plain{out, values}, nil
}

// dataKey has the first recipient's stanza that an identity opens.
func (r *Ring) dataKey(m metadata) ([]byte, error) {
	var known []string
	for _, k := range m.Age {
		known = append(known, k.Recipient)
		if r == nil || len(r.identities) == 0 {
			continue
		}
		key, err := decryptArmored(k.Enc, r.identities)
		var none *age.NoIdentityMatchError
		switch {
		case errors.As(err, &none):
			continue
		case err != nil:
			return nil, fmt.Errorf("%w: the data key for %s is damaged", ErrFile, k.Recipient)
		case len(key) != 32:
			return nil, fmt.Errorf("%w: its data key has %d bytes and not 32", ErrFile, len(key))
		}
		return key, nil
	}
	slices.Sort(known)
	todo := "name the file with the identity in spoke.yaml, decryption.age"
	if r != nil && len(r.files) > 0 {
		todo = "add the file with its identity to decryption.age in spoke.yaml, or let its owner run: sops updatekeys"
	}
	return nil, fmt.Errorf("%w: it is encrypted for %s, %s; %s", ErrKey, strings.Join(known, ", "), r.has(), todo)
}
