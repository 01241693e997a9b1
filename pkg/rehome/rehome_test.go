package rehome

import (
	"bytes"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
)

func sample() Statement {
	at := time.Date(2026, 11, 21, 20, 0, 0, 0, time.UTC)
	return Statement{Cluster: "acme/eu-1", From: strings.Repeat("a1", 32), To: "hub.vendor.example:7443",
		Token: token.Token{ID: "0123456789abcdef", Secret: strings.Repeat("A", 43), Pin: strings.Repeat("b2", 32)}, Nonce: order.Nonce{1, 2, 15: 255},
		Issued: at, Expires: at.Add(24 * time.Hour), Reason: "the old hub was broken into – see #42"}
}

func TestAStatementIsReadAsItIsWritten(t *testing.T) {
	for _, change := range []func(*Statement){
		func(*Statement) {},
		func(s *Statement) { s.To = "[2001:db8::1]:443" },
		func(s *Statement) { s.To = "10.0.0.1:65535" },
		func(s *Statement) { s.Token = token.New(strings.Repeat("0f", 32)) },
		func(s *Statement) { s.Expires = s.Issued.Add(MaxLife) },
	} {
		s := sample()
		change(&s)
		text, err := s.Text()
		if err != nil {
			t.Errorf("%+v: %v", s, err)
			continue
		}
		if back, err := Parse(text); err != nil || !reflect.DeepEqual(back, s) {
			t.Errorf("%s\nread as %+v, %v", text, back, err)
		}
	}
}

func TestWhatCannotBeStatedIsNotWritten(t *testing.T) {
	for want, change := range map[string]func(*Statement){
		"cluster name":             func(s *Statement) { s.Cluster = "eu-1" },
		`from "": want the pin`:    func(s *Statement) { s.From = "" },
		`from "A1`:                 func(s *Statement) { s.From = strings.ToUpper(s.From) },
		`to "hub": want`:           func(s *Statement) { s.To = "hub" },
		`to ":7443"`:               func(s *Statement) { s.To = ":7443" },
		`to "hub:0"`:               func(s *Statement) { s.To = "hub:0" },
		`to "hub:07443"`:           func(s *Statement) { s.To = "hub:07443" },
		`to "hub:65536"`:           func(s *Statement) { s.To = "hub:65536" },
		`to "hub:https"`:           func(s *Statement) { s.To = "hub:https" },
		`to "[hub]:7443"`:          func(s *Statement) { s.To = "[hub]:7443" },
		`to "h ub:7443"`:           func(s *Statement) { s.To = "h ub:7443" },
		`to "dns:///hub:7443"`:     func(s *Statement) { s.To = "dns:///hub:7443" },
		"its secret is damaged":    func(s *Statement) { s.Token.Secret = "short" },
		"digits are not in lower":  func(s *Statement) { s.Token.Pin = strings.ToUpper(s.Token.Pin) },
		"of the hub that it leave": func(s *Statement) { s.From = s.Token.Pin },
		"expires before":           func(s *Statement) { s.Expires = s.Issued },
		"at most 168h":             func(s *Statement) { s.Expires = s.Issued.Add(MaxLife + time.Second) },
		"whole seconds":            func(s *Statement) { s.Issued = s.Issued.Add(time.Millisecond) },
		"no reason":                func(s *Statement) { s.Reason = "" },
		"each on a line":           func(s *Statement) { s.Reason = "a\nto: b:1" },
		"U+001B":                   func(s *Statement) { s.Reason = "a\x1b[2J" },
	} {
		s := sample()
		change(&s)
		if text, err := s.Text(); !errors.Is(err, ErrForm) || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q: %q, %v", want, text, err)
		}
	}
}

// Each of these means the sample, or nearly, to a reader who is not strict.
func TestThereIsOneTextForOneMeaning(t *testing.T) {
	good, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	text := string(good)
	swap := func(from, to string) string {
		if !strings.Contains(text, from) {
			t.Fatalf("no %q in\n%s", from, text)
		}
		return strings.Replace(text, from, to, 1)
	}
	for name, other := range map[string]string{
		"nothing":         "",
		"no end":          strings.TrimSuffix(text, "\n"),
		"a line more":     text + "\n",
		"a field more":    text + "force: yes\n",
		"CRLF":            strings.ReplaceAll(text, "\n", "\r\n"),
		"BOM":             "\ufeff" + text,
		"capital nonce":   swap("ff\n", "FF\n"),
		"a blank":         swap("cluster: ", "cluster:  "),
		"no blank":        swap("cluster: ", "cluster:"),
		"another order":   swap("from: ", "to: "),
		"a zone":          swap("20:00:00Z", "20:00:00+00:00"),
		"a fraction":      swap("20:00:00Z", "20:00:00.0Z"),
		"a blank token":   swap("token: ", "token:  "),
		"capital pin":     swap("b2b2\n", "B2B2\n"),
		"version 2":       swap("version 1", "version 2"),
		"an order":        swap("wheelwright re-home", "wheelwright order"),
		"a name in front": "x" + text,
		"too long":        text + strings.Repeat("a", MaxText),
	} {
		if got, err := Parse([]byte(other)); !errors.Is(err, ErrForm) || got != (Statement{}) {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
}

func TestNoErrorRepeatsTheSecret(t *testing.T) {
	s := sample()
	s.Token.Secret = strings.Repeat("s3cr3t", 7)
	if _, err := s.Text(); err == nil || strings.Contains(err.Error(), "s3cr3t") {
		t.Errorf("got %v", err)
	}
	if text := sample().String(); strings.Contains(text, sample().Token.Secret) {
		t.Errorf("got %s", text)
	}
}

func TestFreshness(t *testing.T) {
	s := sample()
	for at, fresh := range map[time.Time]bool{
		s.Issued: true, s.Issued.Add(-order.MaxSkew): true, s.Issued.Add(-order.MaxSkew - time.Second): false,
		s.Expires.Add(-time.Second): true, s.Expires: false, s.Expires.Add(time.Hour): false,
	} {
		if err := s.Fresh(at); (err == nil) != fresh {
			t.Errorf("at %s: %v", at, err)
		}
	}
}

const block = begin + "U1NIU0lH" + end

func file(t *testing.T) Signed {
	t.Helper()
	text, err := sample().Text()
	if err != nil {
		t.Fatal(err)
	}
	s, err := ParseSigned(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAFileIsPassedAlong(t *testing.T) {
	s := file(t)
	for n := range 3 {
		if len(s.Signatures) != n || s.Statement != sample() {
			t.Fatalf("after %d: %+v", n, s)
		}
		var err error
		if s, err = s.Sign([]byte(strings.TrimSuffix(block, "\n"))); err != nil {
			t.Fatal(err)
		}
	}
	if back, err := ParseSigned(s.Bytes()); err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("read as %+v, %v", back, err)
	}
}

func TestNothingIsBesideTheSignatures(t *testing.T) {
	s := file(t)
	text := string(s.Text)
	for name, raw := range map[string]string{
		"nothing":               "",
		"a signature alone":     block,
		"an empty line between": text + "\n" + block,
		"a line behind":         text + block + "x\n",
		"a signature cut off":   text + block[:len(block)-5],
		"CRLF":                  strings.ReplaceAll(text+block, "\n", "\r\n"),
		"an OpenPGP signature":  text + strings.ReplaceAll(block, "SSH", "PGP"),
		"too many":              text + strings.Repeat(block, MaxSignatures+1),
		"a long one":            text + begin + strings.Repeat("A", MaxSignature) + end,
		"too long":              text + strings.Repeat(begin+strings.Repeat("A", MaxSignature/2)+end, 2*MaxSignatures+3),
	} {
		if got, err := ParseSigned([]byte(raw)); !errors.Is(err, ErrForm) || got.Text != nil {
			t.Errorf("%s: %+v, %v", name, got, err)
		}
	}
	if _, err := s.Sign([]byte("my signature")); !errors.Is(err, ErrForm) {
		t.Errorf("no signature: %v", err)
	}
}

// The README shows a statement as it is.
func TestTheStatementInTheReadme(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil || !bytes.Contains(readme, file(t).Text) {
		t.Errorf("README.md does not show this statement, %v:\n%s", err, file(t).Text)
	}
}

// Whatever is read is written again byte for byte.
func FuzzSigned(f *testing.F) {
	text, err := sample().Text()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add(append(text, block+block...))
	f.Add([]byte(form().Header + "\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := ParseSigned(data)
		if err != nil {
			if s.Text != nil || s.Statement != (Statement{}) {
				t.Errorf("an error and a statement: %+v, %v", s, err)
			}
			return
		}
		text, err := s.Statement.Text()
		if err != nil || !bytes.Equal(text, s.Text) || !bytes.Equal(s.Bytes(), data) {
			t.Errorf("%q was read, and is written %q and %q, %v", data, text, s.Bytes(), err)
		}
	})
}
