package provenance

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// Tag is what an annotated tag object says.
type Tag struct {
	Object  string // hexadecimal id
	Kind    string // of the object
	Name    string
	Time    time.Time // the tagger's
	id      string    // of itself; where it was hashed
	message []byte    // with the signature
	raw     []byte
}

// ParseTag reads a raw tag object strictly: exactly one each of object, type, tag and tagger, in this
// order and with nothing between them and the message.
func ParseTag(raw []byte) (Tag, error) {
	t, err := parseTag(raw)
	if err != nil {
		return Tag{}, fmt.Errorf("read tag object: %w", err)
	}
	return t, nil
}

func parseTag(raw []byte) (Tag, error) {
	t := Tag{raw: raw}
	if i := bytes.IndexAny(raw, "\x00\r"); i >= 0 {
		return t, fmt.Errorf("it holds the byte %#x, where programs differ on whether a line ends; tag again without it", raw[i])
	}
	var tagger string
	for _, h := range []struct {
		key string
		to  *string
	}{{"object", &t.Object}, {"type", &t.Kind}, {"tag", &t.Name}, {"tagger", &tagger}} {
		v, rest, err := header(raw, h.key)
		if err != nil {
			return t, err
		}
		*h.to, raw = v, rest
	}
	var ok bool
	if t.message, ok = bytes.CutPrefix(raw, []byte("\n")); !ok {
		return t, errors.New("a line that does not belong follows its tagger")
	}
	if !isID(t.Object) {
		return t, fmt.Errorf("object id %q", t.Object)
	}
	if !slices.Contains([]string{"commit", "tree", "blob", "tag"}, t.Kind) {
		return t, fmt.Errorf("it names a %q, which is no kind of object", t.Kind)
	}
	if err := CheckTagName(t.Name); err != nil {
		return t, err
	}
	var err error
	if t.Time, err = parseIdent(tagger); err != nil {
		return t, fmt.Errorf("tagger %w", err)
	}
	return t, nil
}

// CheckTagName accepts a tag's short name: what git accepts below refs/tags/ (git-check-ref-format(1)), in
// printable ASCII, so that two names never look alike, and not the long name of a reference.
func CheckTagName(name string) error {
	bad := func(why string) error { return fmt.Errorf("tag name %q %s", name, why) }
	if name == "" || name == "@" || name == "HEAD" || name[0] == '-' {
		return bad("is none")
	}
	for i := range len(name) {
		if c := name[i]; c <= ' ' || c >= 0x7f || strings.IndexByte(`~^:?*[\`, c) >= 0 {
			return bad(fmt.Sprintf("holds the byte %#x, which no tag of a release may", c))
		}
	}
	if strings.Contains(name, "..") || strings.Contains(name, "@{") || strings.HasSuffix(name, ".") {
		return bad("holds dots or braces that mean something else to git")
	}
	parts := strings.Split(name, "/")
	for _, p := range parts {
		if p == "" || p[0] == '.' || strings.HasSuffix(p, ".lock") {
			return bad("is no reference's name")
		}
	}
	if len(parts) > 1 && slices.Contains([]string{"refs", "tags", "heads", "remotes"}, parts[0]) {
		return bad("is the long form of a name; give the short one")
	}
	return nil
}

const (
	beginSSH = "-----BEGIN SSH SIGNATURE-----"
	endSSH   = "-----END SSH SIGNATURE-----"
	beginPGP = "-----BEGIN PGP SIGNATURE-----"
	endPGP   = "-----END PGP SIGNATURE-----"
)

// Signature cuts the object in two: what is signed, to the byte, and the armoured signature. Git looks for
// the last line of the object that begins like one of four signatures and takes all from there; here that
// line must be the only one, of the two kinds that are known, and its block must be all that follows.
// Without a signature all three are empty.
func (t Tag) Signature() (payload, block []byte, err error) {
	at, begin := -1, ""
	for pos := 0; pos < len(t.raw); {
		line, _, _ := bytes.Cut(t.raw[pos:], []byte("\n"))
		if slices.ContainsFunc([]string{beginSSH, beginPGP, "-----BEGIN PGP MESSAGE-----", "-----BEGIN SIGNED MESSAGE-----"},
			func(b string) bool { return bytes.HasPrefix(line, []byte(b)) }) {
			if at >= 0 {
				return nil, nil, fmt.Errorf("tag %s holds two signature blocks, of which git reads the last alone; sign it once", t.Name)
			}
			at, begin = pos, string(line)
		}
		pos += len(line) + 1
	}
	if at < 0 {
		return nil, nil, nil
	}
	end := map[string]string{beginSSH: endSSH, beginPGP: endPGP}[begin]
	if end == "" {
		return nil, nil, fmt.Errorf("tag %s is signed with a block that begins %q, want SSH or OpenPGP; sign it with gpg.format=ssh or openpgp", t.Name, begin)
	}
	payload, block = t.raw[:at:at], t.raw[at:]
	inner, ok := bytes.CutSuffix(block[len(begin):], []byte("\n"+end+"\n"))
	if !ok || bytes.Contains(inner, []byte("\n-----")) {
		return nil, nil, fmt.Errorf("tag %s has text after its signature, or the signature does not end; tag it again", t.Name)
	}
	return payload, block, nil
}

// Trailers of a tag's message that are read. Each is read strictly: at most once, in exactly its form, in the
// message's last paragraph.
const (
	trailerContent      = "Bundle-SHA256"
	trailerDistribution = "Wheelwright-Distribution"
)

// BundleSHA256 is the value of the message's trailer of this name: 64 lower-case hexadecimal digits, or
// empty where there is none.
func (t Tag) BundleSHA256() (string, error) {
	return t.trailer(trailerContent, "64 lower-case hexadecimal digits", isSHA256)
}

// Distribution is the value of the trailer Wheelwright-Distribution: the name of the distribution that the tag is a
// release of, or empty where there is none.
func (t Tag) Distribution() (string, error) {
	return t.trailer(trailerDistribution, "a distribution's name", func(s string) bool { return fleet.CheckDistributionName(s) == nil })
}

func (t Tag) trailer(name, form string, good func(string) bool) (string, error) {
	message := t.message
	if _, block, err := t.Signature(); err != nil {
		return "", err
	} else if block != nil {
		message = message[:len(message)-len(block)]
	}
	lines := strings.Split(strings.TrimRight(string(message), "\n"), "\n")
	found := -1
	for i, l := range lines {
		key, _, ok := strings.Cut(l, ":")
		if !ok || !strings.EqualFold(strings.TrimSpace(key), name) {
			continue
		}
		if found >= 0 {
			return "", fmt.Errorf("tag %s has two %s trailers, want one", t.Name, name)
		}
		found = i
	}
	if found < 0 {
		return "", nil
	}
	value, ok := strings.CutPrefix(lines[found], name+": ")
	if !ok || !good(value) {
		return "", fmt.Errorf("tag %s has the trailer %q, want %q and %s", t.Name, lines[found], name+": ", form)
	}
	if found == 0 || slices.Contains(lines[found:], "") || (found+1 < len(lines) && strings.HasPrefix(lines[found+1], " ")) {
		return "", fmt.Errorf("tag %s has its %s trailer outside its message's last paragraph", t.Name, name)
	}
	return value, nil
}

func isSHA256(s string) bool { return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == "" }
