// Package rehome is the statement that moves a spoke to another hub, as the bytes that vendor and provider sign: a
// text of a few lines with one form only, so that what people read before signing is what the spoke does, and no two
// texts mean the same. The hub that the spoke leaves carries it, and can neither make nor alter one.
//
// It neither signs nor verifies, and does not know whose signatures it takes: that is for the provider's spoke.yaml
// to say.
package rehome

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/order"
	"github.com/wheelwright-dev/wheelwright/pkg/strictlines"
	"github.com/wheelwright-dev/wheelwright/pkg/token"
)

// Namespace is what re-homes are signed in, and nothing else is: a signature over an order or a tag moves no spoke.
const Namespace = "re-home@wheelwright.dev"

// Limits of a statement and of what carries it.
const (
	MaxText       = 4 << 10 // bytes
	MaxSignature  = 8 << 10 // bytes, armoured
	MaxSignatures = 16
	// MaxBytes is the longest statement with its signatures.
	MaxBytes = MaxText + MaxSignatures*MaxSignature
	// MaxLife is the longest from issue to expiry, and so the longest that a move may take.
	MaxLife = 7 * 24 * time.Hour
)

// Statement moves one spoke from one hub to another.
type Statement struct {
	Cluster fleet.Cluster
	From    string      // pin of the authority of the hub that it leaves: 64 hexadecimal digits
	To      string      // HOST:PORT of the hub that it joins
	Token   token.Token // of an invitation there; its pin is that hub's authority
	Nonce   order.Nonce
	Issued  time.Time // whole seconds
	Expires time.Time // whole seconds
	Reason  string    // one line
}

// ErrForm: the bytes are no re-home.
var ErrForm = errors.New("not a re-home as pkg/rehome writes it")

const (
	layout = "2006-01-02T15:04:05Z"
)

// form is the text's.
func form() strictlines.Form {
	return strictlines.Form{Header: "wheelwright re-home, version 1", Max: MaxText,
		Fields: []string{"cluster", "from", "to", "token", "nonce", "issued", "expires", "reason"}}
}

// Text is what is signed. It fails where Parse would.
func (s Statement) Text() ([]byte, error) {
	text := s.text()
	back, err := Parse(text)
	if err != nil {
		return nil, err
	}
	if !back.Issued.Equal(s.Issued) || !back.Expires.Equal(s.Expires) {
		return nil, fmt.Errorf("%w: its times are not whole seconds", ErrForm)
	}
	return text, nil
}

func (s Statement) text() []byte {
	return form().Write(string(s.Cluster), s.From, s.To, s.Token.String(), s.Nonce.String(),
		s.Issued.UTC().Format(layout), s.Expires.UTC().Format(layout), s.Reason)
}

// Parse reads what Text wrote, byte for byte, and nothing else. Its errors never repeat the token's secret.
func Parse(text []byte) (Statement, error) {
	values, err := form().Read(text)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	s := Statement{From: values["from"], To: values["to"], Reason: values["reason"]}
	if err := s.read(values); err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrForm, err)
	}
	if !bytes.Equal(s.text(), text) { // one text for one meaning, whatever the checks above let through
		return Statement{}, fmt.Errorf("%w: it is written in another way than Text writes it", ErrForm)
	}
	return s, nil
}

func (s *Statement) read(values map[string]string) (err error) {
	if s.Cluster, err = fleet.ParseCluster(values["cluster"]); err != nil {
		return err
	}
	if raw, err := hex.DecodeString(s.From); err != nil || len(raw) != 32 || strings.ToLower(s.From) != s.From {
		return fmt.Errorf("from %q: want the pin of the hub's authority, 64 hexadecimal digits", s.From)
	}
	if err := checkAddress(s.To); err != nil {
		return err
	}
	if s.Token, err = token.Parse(values["token"]); err != nil {
		return err
	}
	if strings.ToLower(s.Token.ID) != s.Token.ID || strings.ToLower(s.Token.Pin) != s.Token.Pin {
		return errors.New("join token: its digits are not in lower case")
	}
	if s.Nonce, err = order.ParseNonce(values["nonce"]); err != nil {
		return err
	}
	if s.Issued, err = time.Parse(layout, values["issued"]); err != nil {
		return fmt.Errorf("issued %q: want a time such as %s", values["issued"], layout)
	}
	if s.Expires, err = time.Parse(layout, values["expires"]); err != nil {
		return fmt.Errorf("expires %q: want a time such as %s", values["expires"], layout)
	}
	switch life := s.Expires.Sub(s.Issued); {
	case life <= 0:
		return errors.New("it expires before it is issued")
	case life > MaxLife:
		return fmt.Errorf("it lives for %v, at most %v is taken", life, MaxLife)
	case s.Token.Pin == s.From:
		return errors.New("its token is of the hub that it leaves: want an invitation of another one")
	}
	return order.CheckReason(s.Reason)
}

var hostForm = regexp.MustCompile(`^[A-Za-z0-9:][A-Za-z0-9.:_-]*$`)

func checkAddress(s string) error {
	host, port, err := net.SplitHostPort(s)
	n, wrong := strconv.ParseUint(port, 10, 16)
	if err != nil || wrong != nil || n == 0 || len(host) > 253 || !hostForm.MatchString(host) || net.JoinHostPort(host, strconv.FormatUint(n, 10)) != s {
		return fmt.Errorf("to %q: want the new hub's HOST:PORT", s)
	}
	return nil
}

// Fresh says why a move may not be made at a time; nil: it may. Expiry knows no grace.
func (s Statement) Fresh(now time.Time) error {
	if ahead := s.Issued.Sub(now); ahead > order.MaxSkew {
		return fmt.Errorf("it is issued at %s, %v ahead of the clock here: compare the clocks", s.Issued.Format(layout), ahead.Round(time.Second))
	}
	if !now.Before(s.Expires) {
		return fmt.Errorf("it expired at %s: prepare another", s.Expires.Format(layout))
	}
	return nil
}

// String is the statement in one line, for people. It does not have the token.
func (s Statement) String() string {
	return fmt.Sprintf("re-home of %s to %s (%s)", s.Cluster, s.To, s.Nonce)
}

// Signed is a statement with what was signed over its text: the file that vendor and provider hand to one another.
type Signed struct {
	Statement
	Text       []byte
	Signatures [][]byte // armoured, each ended by one LF; none yet, where nobody has signed
}

// Sign adds an armoured signature over Text.
func (s Signed) Sign(armoured []byte) (Signed, error) {
	return ParseSigned(append(s.Bytes(), append(bytes.TrimRight(armoured, "\n"), '\n')...))
}

// Bytes is the file: the text, and behind it one signature after the other, as `ssh-keygen -Y sign` prints them.
func (s Signed) Bytes() []byte { return slices.Concat(append([][]byte{s.Text}, s.Signatures...)...) }

const (
	begin = "-----BEGIN SSH SIGNATURE-----\n"
	end   = "\n-----END SSH SIGNATURE-----\n"
)

// ParseSigned reads a file strictly: what it takes is what Bytes writes, to the byte. It checks no signature.
func ParseSigned(raw []byte) (Signed, error) {
	if len(raw) > MaxBytes {
		return Signed{}, fmt.Errorf("%w: %d bytes, more than %d", ErrForm, len(raw), MaxBytes)
	}
	text, rest := raw, []byte(nil)
	if at := bytes.Index(raw, []byte("\n"+begin)); at >= 0 {
		text, rest = raw[:at+1], raw[at+1:]
	}
	s, err := Parse(text)
	if err != nil {
		return Signed{}, err
	}
	f := Signed{Statement: s, Text: bytes.Clone(text)}
	for len(rest) > 0 {
		at := bytes.Index(rest, []byte(end))
		if !bytes.HasPrefix(rest, []byte(begin)) || at < 0 {
			return Signed{}, fmt.Errorf("%w: what follows the text or a signature is no whole SSH signature", ErrForm)
		}
		at += len(end)
		if at > MaxSignature {
			return Signed{}, fmt.Errorf("%w: a signature of %d bytes, at most %d are taken", ErrForm, at, MaxSignature)
		}
		f.Signatures, rest = append(f.Signatures, bytes.Clone(rest[:at])), rest[at:]
	}
	if len(f.Signatures) > MaxSignatures {
		return Signed{}, fmt.Errorf("%w: %d signatures, at most %d are taken", ErrForm, len(f.Signatures), MaxSignatures)
	}
	return f, nil
}
