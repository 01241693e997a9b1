// Package channel is a vendor's signed statement of what is current in one of its distributions: the latest
// release, which ones were called back, and until when that is news. A spoke that has one knows when it is
// kept from newer ones, and goes back from a release because its vendor says so and not because a hub does.
//
// A statement names the one before it by its sum, so that two statements that follow the same one are two
// stories told by one signer, whoever handed them out. The form is text, read one strict way:
//
//	wheelwright channel statement 1
//	distribution shop
//	sequence 3
//	latest 1.4.0
//	recalled 1.3.0
//	issued 2026-11-21T10:00:00Z
//	expires 2026-12-21T10:00:00Z
//	previous sha256:8a5e…
//
// with a line `recalled` for each release called back, ascending, and `previous none` in the first statement.
// An empty line and armoured signatures over these lines follow, SSH (in the namespace
// channel@wheelwright.dev) or OpenPGP.
package channel

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

const (
	first = "wheelwright channel statement 1"
	none  = "none"

	// MaxBytes bounds a signed statement.
	MaxBytes = 64 << 10
	// MaxLife is how long a statement may be news.
	MaxLife       = 400 * 24 * time.Hour
	maxRecalled   = 1000
	maxSignatures = 16
)

// Statement is what a vendor says of one distribution.
type Statement struct {
	Distribution string
	Sequence     uint64 // from 1
	Latest       string // a version
	Recalled     []string
	Issued       time.Time // whole seconds
	Expires      time.Time
	Previous     fleet.Digest // of the statement before this one; empty: this is the first
}

// Recalls reports that the vendor has called a release back.
func (s Statement) Recalls(version string) bool { return slices.Contains(s.Recalled, version) }

// Check finds what no statement may say.
func (s Statement) Check() error {
	if err := fleet.CheckDistributionName(s.Distribution); err != nil {
		return err
	}
	for _, v := range append([]string{s.Latest}, s.Recalled...) {
		if _, err := fleet.ParseVersion(v); err != nil {
			return err
		}
	}
	ascending := slices.IsSortedFunc(s.Recalled, fleet.CompareTags) && len(slices.Compact(slices.Clone(s.Recalled))) == len(s.Recalled)
	switch {
	case s.Sequence == 0:
		return errors.New("sequence 0: statements are counted from 1")
	case (s.Sequence == 1) != (s.Previous == ""):
		return fmt.Errorf("sequence %d with previous %q: the first statement, and no other, has none before it", s.Sequence, s.Previous)
	case s.Recalls(s.Latest):
		return fmt.Errorf("the latest release, %s, is called back too", s.Latest)
	case len(s.Recalled) > maxRecalled:
		return fmt.Errorf("%d releases called back, at most %d are read", len(s.Recalled), maxRecalled)
	case !ascending:
		return errors.New("what is called back does not ascend")
	case !s.Expires.After(s.Issued):
		return fmt.Errorf("expires at %s, which is not after %s, when it was issued", stamp(s.Expires), stamp(s.Issued))
	case s.Expires.Sub(s.Issued) > MaxLife:
		return fmt.Errorf("expires %d days after it was issued, want at most %d", int(s.Expires.Sub(s.Issued).Hours()/24), int(MaxLife.Hours()/24))
	}
	return nil
}

// Text is what is signed: the statement's one form.
func (s Statement) Text() ([]byte, error) {
	if err := s.Check(); err != nil {
		return nil, fmt.Errorf("write channel statement: %w", err)
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s\ndistribution %s\nsequence %d\nlatest %s\n", first, s.Distribution, s.Sequence, s.Latest)
	for _, v := range s.Recalled {
		fmt.Fprintf(&b, "recalled %s\n", v)
	}
	previous := string(s.Previous)
	if previous == "" {
		previous = none
	}
	fmt.Fprintf(&b, "issued %s\nexpires %s\nprevious %s\n", stamp(s.Issued), stamp(s.Expires), previous)
	return b.Bytes(), nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Signed is a statement with its signatures, as it was read.
type Signed struct {
	Statement
	text   []byte
	blocks [][]byte
}

// Digest is of what is signed: the same whoever has signed it.
func (s Signed) Digest() fleet.Digest {
	return fleet.Digest(fmt.Sprintf("sha256:%x", sha256.Sum256(s.text)))
}

// Bytes are those that Parse reads.
func (s Signed) Bytes() []byte {
	out := slices.Concat(s.text, []byte("\n"))
	for _, b := range s.blocks {
		out = append(out, b...)
	}
	return out
}

// New is a statement that nobody has signed yet.
func New(s Statement) (Signed, error) {
	s.Issued, s.Expires = s.Issued.UTC().Truncate(time.Second), s.Expires.UTC().Truncate(time.Second)
	text, err := s.Text()
	return Signed{Statement: s, text: text}, err
}

// Sign adds a signature, which sign makes of the text: an armoured block.
func (s Signed) Sign(sign func(text []byte) ([]byte, error)) (Signed, error) {
	block, err := sign(s.text)
	if err != nil {
		return s, fmt.Errorf("sign channel statement: %w", err)
	}
	s.blocks = append(slices.Clone(s.blocks), append(bytes.TrimRight(block, "\n"), '\n'))
	return Parse(s.Bytes())
}

// Parse reads a statement strictly: what it accepts is what Bytes writes, to the byte. It checks no signature.
func Parse(raw []byte) (Signed, error) {
	s, err := parse(raw)
	if err != nil {
		return Signed{}, fmt.Errorf("read channel statement: %w", err)
	}
	return s, nil
}

func parse(raw []byte) (Signed, error) {
	if len(raw) > MaxBytes {
		return Signed{}, fmt.Errorf("%d bytes, at most %d are read", len(raw), MaxBytes)
	}
	text, rest, ok := bytes.Cut(raw, []byte("\n\n"))
	if !ok {
		return Signed{}, errors.New("no empty line after the statement")
	}
	text = append(slices.Clone(text), '\n')
	s, err := read(text)
	if err != nil {
		return Signed{}, err
	}
	again, err := s.Text()
	if err != nil {
		return Signed{}, err
	}
	if !bytes.Equal(again, text) {
		return Signed{}, errors.New("it is not written in its one form; make it with hub channel sign")
	}
	blocks, err := armoured(rest)
	return Signed{s, text, blocks}, err
}

// read takes the lines in their order; that nothing else was there is found out by writing them again.
func read(text []byte) (s Statement, err error) {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	if lines[0] != first {
		return s, fmt.Errorf("it begins %.60q, want %q", lines[0], first)
	}
	for _, line := range lines[1:] {
		key, value, _ := strings.Cut(line, " ")
		switch key {
		case "distribution":
			s.Distribution = value
		case "sequence":
			s.Sequence, err = strconv.ParseUint(value, 10, 63)
		case "latest":
			s.Latest = value
		case "recalled":
			s.Recalled = append(s.Recalled, value)
		case "issued":
			s.Issued, err = time.Parse(time.RFC3339, value)
		case "expires":
			s.Expires, err = time.Parse(time.RFC3339, value)
		case "previous":
			if value != none {
				s.Previous, err = fleet.ParseDigest(value)
			}
		default:
			err = errors.New("no line of a statement begins so")
		}
		if err != nil {
			return s, fmt.Errorf("line %.60q: %w", line, err)
		}
	}
	return s, nil
}

// armoured splits what follows the statement into its signatures, of which nothing may be left over.
func armoured(rest []byte) (blocks [][]byte, err error) {
	for len(rest) > 0 {
		line, _, _ := bytes.Cut(rest, []byte("\n"))
		kind, ok := strings.CutPrefix(string(line), "-----BEGIN ")
		if !ok || !slices.Contains([]string{"SSH SIGNATURE-----", "PGP SIGNATURE-----"}, kind) {
			return nil, fmt.Errorf("%.60q follows, want a signature", line)
		}
		end := []byte("\n-----END " + kind + "\n")
		at := bytes.Index(rest, end)
		if at < 0 {
			return nil, errors.New("its last signature does not end")
		}
		blocks = append(blocks, slices.Clone(rest[:at+len(end)]))
		rest = rest[at+len(end):]
	}
	if len(blocks) > maxSignatures {
		return nil, fmt.Errorf("%d signatures, at most %d are read", len(blocks), maxSignatures)
	}
	return blocks, nil
}

// Verify says who has signed: as many different keys as the policy asks for, its signers read for the
// namespace signer.Channel. Keys are judged at the time at which the statement says to have been issued, which
// may not be more than provenance.Skew ahead of now. Whether it has expired is not asked.
func (s Signed) Verify(distribution string, policy provenance.Policy, now time.Time) ([]string, error) {
	by, err := s.verify(distribution, policy, now)
	if err != nil {
		return nil, fmt.Errorf("channel statement %d of %s: %w", s.Sequence, s.Distribution, err)
	}
	return by, nil
}

func (s Signed) verify(distribution string, policy provenance.Policy, now time.Time) ([]string, error) {
	if err := policy.Check(); err != nil {
		return nil, err
	}
	latest := now.Add(provenance.Skew)
	switch {
	case s.Distribution != distribution:
		return nil, fmt.Errorf("it is about another distribution than %s", distribution)
	case s.Issued.After(latest):
		return nil, fmt.Errorf("it says to be of %s, which is yet to come here at %s; correct the clock that is wrong", stamp(s.Issued), stamp(now))
	}
	var by, keys []string
	var why []error
	for _, block := range s.blocks {
		who, err := policy.Signers.Verify(s.text, block, s.Issued, latest)
		switch {
		case err != nil:
			why = append(why, err)
		case !slices.Contains(keys, who.Fingerprint):
			keys, by = append(keys, who.Fingerprint), append(by, who.String())
		}
	}
	if want := max(1, policy.Threshold); len(by) < want {
		return nil, fmt.Errorf("%w: %d of the %d keys listed here signed it, want %d: %w",
			provenance.ErrUnsigned, len(by), policy.Signers.Len(), want, errors.Join(why...))
	}
	return by, nil
}
