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
)

const (
	// fileName holds certificate and key together, so that there is never one without the other.
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
		a, err := parse(data)
		if err != nil {
			return nil, fmt.Errorf("open authority %s: %w; restore the file from a backup (a new authority would lock out every cluster)", path, err)
		}
		return a, nil
	case !errors.Is(err, os.ErrNotExist):
		return nil, fmt.Errorf("open authority: %w", err)
	}
	if err := emptyFolder(dir); err != nil {
		return nil, fmt.Errorf("open authority %s: %w", path, err)
	}
	a, err := create(dir)
	if err != nil {
		return nil, fmt.Errorf("create authority %s: %w", path, err)
	}
	return a, nil
}

func parse(data []byte) (*Authority, error) {
	var a Authority
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch block.Type {
		case blockCertificate:
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("its certificate: %w", err)
			}
			a.cert = cert
		case blockKey:
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, errors.New("its key does not parse") // an error of the parser could quote it
			}
			signer, ok := key.(crypto.Signer)
			if !ok {
				return nil, fmt.Errorf("its key is a %T, want one that signs", key)
			}
			a.key = signer
		}
	}
	switch {
	case a.cert == nil:
		return nil, errors.New("holds no certificate")
	case a.key == nil:
		return nil, errors.New("holds no key")
	case !a.cert.IsCA:
		return nil, errors.New("its certificate is no authority's")
	}
	public, ok := a.key.Public().(*ecdsa.PublicKey)
	if !ok || !public.Equal(a.cert.PublicKey) {
		return nil, errors.New("key and certificate do not belong together")
	}
	if time.Now().After(a.cert.NotAfter) {
		return nil, fmt.Errorf("expired at %s", a.cert.NotAfter.Format(time.RFC3339))
	}
	return &a, nil
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

func create(dir string) (*Authority, error) {
	cert, key, err := selfSigned()
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: blockCertificate, Bytes: cert.Raw})
	data = append(data, pem.EncodeToMemory(&pem.Block{Type: blockKey, Bytes: keyDER})...)
	if err := writeNew(dir, data); err != nil {
		return nil, err
	}
	return &Authority{cert: cert, key: key}, nil
}

// writeNew writes aside and links into place, all of it on disk before it returns. The link fails where
// another hub was faster, whose authority must not be written over.
func writeNew(dir string, data []byte) (err error) {
	f, err := os.CreateTemp(dir, fileName+".new-*") // 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(f.Name())) }()
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Link(f.Name(), filepath.Join(dir, fileName)); err != nil {
		return err
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
