package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

const (
	// fileName holds certificates and keys together, each certificate before its key and the oldest first, so that
	// there is never one without the other.
	fileName         = "authority.pem"
	blockCertificate = "CERTIFICATE"
	blockKey         = "PRIVATE KEY"
)

// Open reads the authority in dir, a folder of its own, or makes one where the folder is empty or not
// there. A folder that holds something else but no authority is refused: making a new one there would
// lock out every spoke of the old.
func Open(dir string) (*Authority, error) {
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	switch {
	case err == nil:
		roots, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("open authority %s: %w; restore the file from a backup (a new authority would lock out every cluster)", path, err)
		}
		return opened(dir, roots), nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open authority: %w", err)
	}
	if err := emptyFolder(dir); err != nil {
		return nil, fmt.Errorf("open authority %s: %w", path, err)
	}
	r, err := create(dir)
	if err != nil {
		return nil, fmt.Errorf("create authority %s: %w", path, err)
	}
	return opened(dir, []root{r}), nil
}

// Check says what Open would refuse in dir, and makes nothing.
func Check(dir string) error {
	path := filepath.Join(dir, fileName)
	data, err := os.ReadFile(path)
	if err == nil {
		_, err = parse(data)
	}
	if err != nil {
		return fmt.Errorf("authority %s: %w", path, err)
	}
	return nil
}

func parse(data []byte) ([]root, error) {
	var roots []root
	var cert *x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch block.Type {
		case blockCertificate:
			if cert != nil {
				return nil, errors.New("holds no key of its certificate")
			}
			var err error
			if cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				return nil, fmt.Errorf("its certificate: %w", err)
			}
		case blockKey:
			r, err := pair(cert, block.Bytes)
			if err != nil {
				return nil, err
			}
			roots, cert = append(roots, r), nil
		}
	}
	switch {
	case cert != nil:
		return nil, errors.New("holds no key of its certificate")
	case len(roots) == 0:
		return nil, errors.New("holds no certificate")
	}
	if newest := roots[len(roots)-1].cert; time.Now().After(newest.NotAfter) {
		return nil, fmt.Errorf("expired at %s", newest.NotAfter.Format(time.RFC3339))
	}
	return roots, nil
}

// pair checks that a certificate and a key, in PKCS#8, are an authority's.
func pair(cert *x509.Certificate, keyDER []byte) (root, error) {
	if cert == nil {
		return root{}, errors.New("holds no certificate of its key")
	}
	key, err := x509.ParsePKCS8PrivateKey(keyDER)
	if err != nil {
		return root{}, errors.New("its key does not parse") // an error of the parser could quote it
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return root{}, fmt.Errorf("its key is a %T, want one that signs", key)
	}
	public, ok := signer.Public().(*ecdsa.PublicKey)
	switch {
	case !cert.IsCA:
		return root{}, errors.New("its certificate is no authority's")
	case !ok || !public.Equal(cert.PublicKey):
		return root{}, errors.New("key and certificate do not belong together")
	}
	return root{cert, signer}, nil
}

// emptyFolder makes the folder. What a killed creation left does not count as content.
func emptyFolder(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), fileName+".new-") {
			return fmt.Errorf("the file is missing but the folder holds %s: restore %s from a backup, or begin anew with an empty folder (`mv %s %s.old`) and invite every cluster again",
				e.Name(), fileName, dir, dir)
		}
	}
	return nil
}

func create(dir string) (root, error) {
	r, err := selfSigned()
	if err != nil {
		return root{}, err
	}
	return r, write(dir, []root{r}, os.Link)
}

// write has what it writes on disk, and then in its place by means of place: os.Link fails where another hub was
// faster, whose authority must not be written over; os.Rename replaces what is there, all of it or nothing.
func write(dir string, roots []root, place func(from, to string) error) (err error) {
	var data []byte
	for _, r := range roots {
		key, err := x509.MarshalPKCS8PrivateKey(r.key)
		if err != nil {
			return err
		}
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: r.cert.Raw})...)
		data = append(data, pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: key})...)
	}
	f, err := os.CreateTemp(dir, fileName+".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() {
		if gone := os.Remove(f.Name()); !errors.Is(gone, os.ErrNotExist) {
			err = errors.Join(err, gone)
		}
	}()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := place(f.Name(), filepath.Join(dir, fileName)); err != nil {
		return err
	}
	return wholefile.SyncFolder(dir)
}
