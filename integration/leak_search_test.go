package integration

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// canary is a value that stands nowhere else in the world: letters and digits, so that it may be a name too.
func canary(n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "canary %d", n))
	return fmt.Sprintf("cnry%03d%s", n, hex.EncodeToString(sum[:])[:20])
}

const (
	canaries = 200
	inSOPS   = 160 // from here on they stand in encrypted files alone
)

// traces finds canaries, or a part of one, in bytes: ten characters of it as they are, and what these become in
// base64 at any alignment, in hex, in a URL and in JSON.
type traces map[int]map[string]int // by width

func newTraces() traces {
	t := traces{}
	add := func(text string, width, n int) {
		if t[width] == nil {
			t[width] = map[string]int{}
		}
		for i := 0; i+width <= len(text); i++ {
			t[width][text[i:i+width]] = n
		}
	}
	for n := range canaries {
		c := canary(n)[7:] // what is random of it
		add(c, 10, n)
		add(hex.EncodeToString([]byte(c)), 20, n)
		for offset, skip := range []int{0, 2, 3} {
			raw := append(make([]byte, offset), c...)
			add(base64.RawStdEncoding.EncodeToString(raw)[skip:len(raw)*8/6], 14, n)
		}
	}
	return t
}

// find answers which canaries are in data, and what stands around the first trace of each.
func (t traces) find(data []byte) map[int]string {
	found := map[int]string{}
	lower := bytes.ToLower(data) // hex in capitals
	for width, known := range t {
		in := data
		if width == 20 {
			in = lower
		}
		for i := 0; i+width <= len(in); i++ {
			if n, ok := known[string(in[i:i+width])]; ok && found[n] == "" {
				found[n] = fmt.Sprintf("%q", data[max(0, i-160):min(len(data), i+width+40)])
			}
		}
	}
	return found
}

// report is an error for each canary that is in data, and their numbers.
func (t traces) report(tb testing.TB, where string, data []byte, hits map[int]bool, from int) {
	tb.Helper()
	found := t.find(data)
	for _, n := range slices.Sorted(maps.Keys(found)) {
		if n < from {
			continue
		}
		if !hits[n] && len(hits) < 40 {
			tb.Errorf("canary %d is in %s: …%s…", n, where, found[n])
		}
		hits[n] = true
	}
}

// files reads every file below a folder.
func files(tb testing.TB, dir string) map[string][]byte {
	tb.Helper()
	all := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) || err == nil && !e.Type().IsRegular() {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil // it was only passing
		}
		all[path] = data
		return err
	})
	if err != nil {
		tb.Fatal(err)
	}
	return all
}

// wiretap stands between a spoke and its hub, with the hub's authority and the spoke's own key: it sees every byte in
// clear, in both directions.
type wiretap struct {
	addr     string
	listener net.Listener

	mu   sync.Mutex
	seen bytes.Buffer
}

func (w *wiretap) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen.Write(p)
}

func (w *wiretap) bytes() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.seen.Bytes())
}

// tap puts a wiretap into a spoke that has joined.
func tap(tb testing.TB, h *world.Hub, sp *world.Spoke) *wiretap {
	tb.Helper()
	must := func(err error) {
		tb.Helper()
		if err != nil {
			tb.Fatal(err)
		}
	}
	ca, issuer := authority(tb, h.Dir)
	pool := x509.NewCertPool()
	pool.AddCert(issuer)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "tap"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}}, issuer, &key.PublicKey, ca.PrivateKey)
	must(err)
	w := &wiretap{}
	w.listener, err = tls.Listen("tcp", "127.0.0.1:0", &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, ClientAuth: tls.RequireAnyClientCert,
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	must(err)
	tb.Cleanup(func() { w.listener.Close() })
	w.addr = w.listener.Addr().String()

	file := filepath.Join(sp.Dir, "identity.json")
	data, err := os.ReadFile(file)
	must(err)
	var identity map[string]any
	must(json.Unmarshal(data, &identity))
	own, err := tls.X509KeyPair([]byte(identity["certificate"].(string)), []byte(identity["key"].(string)))
	must(err)
	identity["hub"] = w.addr
	data, err = json.Marshal(identity)
	must(err)
	must(os.WriteFile(file, data, 0o600))
	go w.serve(h.Addr, &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, RootCAs: pool, Certificates: []tls.Certificate{own}})
	return w
}

// authority is the hub's own.
func authority(tb testing.TB, dir string) (tls.Certificate, *x509.Certificate) {
	tb.Helper()
	for _, data := range files(tb, dir) {
		if pair, err := tls.X509KeyPair(data, data); err == nil {
			if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err == nil && leaf.IsCA {
				return pair, leaf
			}
		}
	}
	tb.Fatalf("no authority in %s", dir)
	return tls.Certificate{}, nil
}

func (w *wiretap) serve(to string, as *tls.Config) {
	for {
		from, err := w.listener.Accept()
		if err != nil {
			return
		}
		go func() {
			defer from.Close()
			hub, err := tls.Dial("tcp", to, as)
			if err != nil {
				return
			}
			defer hub.Close()
			go func() {
				io.Copy(hub, io.TeeReader(from, w))
				hub.CloseWrite()
			}()
			io.Copy(from, io.TeeReader(hub, w))
		}()
	}
}

// What the search could not find would prove nothing.
func TestTracesAreFound(t *testing.T) {
	all := newTraces()
	c := canary(42)
	quoted, _ := json.Marshal(map[string]string{"a\"b": "x\n" + c})
	for name, text := range map[string]string{
		"raw": "x" + c, "half": c[10:22], "base64": base64.StdEncoding.EncodeToString([]byte(c)), "base64 1": base64.StdEncoding.EncodeToString([]byte("." + c + ".")),
		"base64 2": base64.URLEncoding.EncodeToString([]byte(".." + c)), "hex": fmt.Sprintf("%x", c), "HEX": fmt.Sprintf("%X", c),
		"url": "?q=" + url.QueryEscape(" "+c), "json": string(quoted), "pem": string(pem.EncodeToMemory(&pem.Block{Type: "X", Bytes: []byte(c)})),
	} {
		if found := all.find([]byte(text)); len(found) != 1 || found[42] == "" {
			t.Errorf("%s: found %v", name, found)
		}
	}
	if found := all.find([]byte("nothing of the kind, cnry042")); len(found) > 0 {
		t.Error(found)
	}
}
