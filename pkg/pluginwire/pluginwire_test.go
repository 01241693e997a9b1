package pluginwire

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"errors"
	"strings"
	"testing"
)

func TestTheHandshakeLine(t *testing.T) {
	id, err := NewIdentity()
	if err != nil {
		t.Fatal(err)
	}
	cert := base64.RawStdEncoding.EncodeToString(id.cert.Certificate[0])
	for text, want := range map[string]string{
		"1|1|unix|/run/p|grpc|" + cert:               "",
		"1|1|unix|/run/p|grpc|" + cert + "==|true\r": "",
		"1|1|tcp|127.0.0.1:1234|grpc|" + cert:        "",
		"1|1|tcp|[::1]:1234|grpc|" + cert:            "",
		"":                                           "where a handshake line belongs",
		"Listening on :8080":                         "is it a plugin?",
		strings.Repeat("x", 500):                     "…",
		"2|1|unix|/run/p|grpc|" + cert:               "speaks core protocol 2",
		"1|7|unix|/run/p|grpc|" + cert:               "speaks plugin protocol 7",
		"1|1|unix|/run/p|netrpc|" + cert:             "speaks netrpc",
		"1|1|unix||grpc|" + cert:                     "names no socket",
		"1|1|tcp|10.0.0.1:80|grpc|" + cert:           "want a loopback address",
		"1|1|tcp|localhost|grpc|" + cert:             "want a loopback address",
		"1|1|vsock|3|grpc|" + cert:                   "want unix or tcp",
		"1|1|unix|/run/p|grpc":                       "has no certificate",
		"1|1|unix|/run/p|grpc|!":                     "the certificate in its handshake line",
		"1|1|unix|/run/p|grpc|" + base64.RawStdEncoding.EncodeToString([]byte("no certificate at all")): "the certificate in its handshake line",
	} {
		line, err := ParseLine(text)
		if want == "" && (err != nil || line.Certificate == nil) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%.60q: got %v, want %q", text, err, want)
		}
	}
	var other ErrIncompatible
	if _, err := ParseLine("1|7|unix|/run/p|grpc|x"); !errors.As(err, &other) {
		t.Errorf("got %v", err)
	}
}

func TestReadLineIsBounded(t *testing.T) {
	for text, want := range map[string]string{
		strings.Repeat("x", 1<<20): "more than 16384 bytes",
		"":                         "without a handshake line",
		"hello\nthere\n":           `said "hello"`,
	} {
		if _, err := ReadLine(bufio.NewReader(strings.NewReader(text))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %q", text, err, want)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, tt := range []struct {
		offered, known []string
		want           string
	}{
		{[]string{"1.1", "1.0"}, []string{"1.0", "1.1"}, "1.1"},
		{[]string{"2.0", "1.0"}, []string{"1.0"}, "1.0"},
		{[]string{"2.0"}, []string{"1.0"}, ""},
		{nil, []string{"1.0"}, ""},
	} {
		if got, ok := Negotiate(tt.offered, tt.known); got != tt.want || ok != (tt.want != "") {
			t.Errorf("%v of %v: got %q, %v", tt.offered, tt.known, got, ok)
		}
	}
}

func FuzzStdio(f *testing.F) {
	f.Add([]byte{8, 2, 18, 2, 'h', 'i'})
	f.Add([]byte{18, 255, 255})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, data, err := stdioData(raw); err == nil && len(data) > 0 && !bytes.Contains(raw, data) {
			t.Errorf("%x out of %x", data, raw)
		}
	})
}
