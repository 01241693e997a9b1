package sops

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// sealed begins what Seal makes; a line with the recipients follows, and then the age file.
const sealed = "wheelwright sealed 1 "

// Sealed reports that data is what Seal makes.
func Sealed(data []byte) bool { return bytes.HasPrefix(data, []byte(sealed)) }

// Seal encrypts data for the ring's own identities: without one of their files nobody reads it again.
func (r *Ring) Seal(data []byte) ([]byte, error) {
	if len(r.recipients) == 0 {
		return nil, fmt.Errorf("seal: %w: none was read", ErrKey)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s%s\n", sealed, strings.Join(r.names, " "))
	w, err := age.Encrypt(&b, r.recipients...)
	if err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	_, err = w.Write(data)
	if err := errors.Join(err, w.Close()); err != nil {
		return nil, fmt.Errorf("seal: %w", err)
	}
	return b.Bytes(), nil
}

// Unseal is the way back.
func (r *Ring) Unseal(data []byte) ([]byte, error) {
	head, body, found := bytes.Cut(data, []byte("\n"))
	if !found || !Sealed(data) {
		return nil, fmt.Errorf("%w: it is not sealed", ErrFile)
	}
	names := strings.ReplaceAll(strings.TrimPrefix(string(head), sealed), " ", ", ")
	if r == nil || len(r.identities) == 0 {
		return nil, fmt.Errorf("%w: it is sealed for %s; name the file with the identity in spoke.yaml, decryption.age", ErrKey, names)
	}
	plain, err := decrypt(bytes.NewReader(body), r.identities)
	if err != nil {
		return nil, fmt.Errorf("%w: it is sealed for %s, %s; put the file with its identity back under decryption.age in spoke.yaml", ErrKey, names, r.has())
	}
	return plain, nil
}

func decrypt(in io.Reader, identities []age.Identity) ([]byte, error) {
	r, err := age.Decrypt(in, identities...)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func decryptArmored(text string, identities []age.Identity) ([]byte, error) {
	return decrypt(armor.NewReader(strings.NewReader(text)), identities)
}
