package clientcontext

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func example(t *testing.T) Context {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}))
	return Context{Address: "127.0.0.1:7443", CA: certPEM, Certificate: certPEM,
		Key: string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}))}
}

func TestAContextSurvivesItsFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.yaml")
	want := example(t)
	for range 2 { // the second replaces the first
		if err := Save(path, want); err != nil {
			t.Fatal(err)
		}
	}
	got, err := Load(path)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v; want 0600", info.Mode(), err)
	}
	left, _ := os.ReadDir(filepath.Dir(path))
	if len(left) != 1 {
		t.Errorf("%d files left, want one", len(left))
	}
	conn, err := Dial(got, nil)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func TestADamagedContextIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "admin.yaml")
	if _, err := Load(path); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "hub serve") {
		t.Errorf("missing: got %v", err)
	}
	good := example(t)
	if err := Save(path, good); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"unknown key": string(data) + "extra: 1\n",
		"version":     strings.Replace(string(data), "version: 1", "version: 2", 1),
		"no key":      strings.Replace(string(data), "PRIVATE KEY", "NOTHING", 1),
		"no address":  strings.Replace(string(data), "127.0.0.1:7443", `""`, 1),
		"no yaml":     "\t",
	} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: got %v, want an error that names the file", name, err)
		} else if strings.Contains(err.Error(), strings.Split(good.Key, "\n")[1]) {
			t.Errorf("%s: the error shows the key", name)
		}
	}
}
