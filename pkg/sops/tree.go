package sops

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"regexp"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// metadata is what SOPS keeps under the key "sops". Key groups and services are read to be refused.
type metadata struct {
	ShamirThreshold int              `yaml:"shamir_threshold"`
	KeyGroups       []map[string]any `yaml:"key_groups"`
	KMS             []any            `yaml:"kms"`
	GCP             []any            `yaml:"gcp_kms"`
	Huawei          []any            `yaml:"hckms"`
	Azure           []any            `yaml:"azure_kv"`
	Vault           []any            `yaml:"hc_vault"`
	PGP             []any            `yaml:"pgp"`
	Age             []struct {
		Recipient string `yaml:"recipient"`
		Enc       string `yaml:"enc"`
	} `yaml:"age"`
	LastModified            string `yaml:"lastmodified"`
	MAC                     string `yaml:"mac"`
	UnencryptedSuffix       string `yaml:"unencrypted_suffix"`
	EncryptedSuffix         string `yaml:"encrypted_suffix"`
	UnencryptedRegex        string `yaml:"unencrypted_regex"`
	EncryptedRegex          string `yaml:"encrypted_regex"`
	UnencryptedCommentRegex string `yaml:"unencrypted_comment_regex"`
	EncryptedCommentRegex   string `yaml:"encrypted_comment_regex"`
	MACOnlyEncrypted        bool   `yaml:"mac_only_encrypted"`
	Version                 string `yaml:"version"`
}

// check refuses what is not read here.
func (m metadata) check() error {
	if len(m.KeyGroups) > 0 || m.ShamirThreshold > 0 {
		return fmt.Errorf("%w: its key is split over key groups, which the spoke does not put together; encrypt it for age alone: sops rotate --add-age RECIPIENT", ErrKey)
	}
	if len(m.Age) == 0 {
		var with []string
		for name, keys := range map[string][]any{"pgp": m.PGP, "kms": m.KMS, "gcp_kms": m.GCP, "hckms": m.Huawei, "azure_kv": m.Azure, "hc_vault": m.Vault} {
			if len(keys) > 0 {
				with = append(with, name)
			}
		}
		return fmt.Errorf("%w: it is encrypted for %s and no age recipient, and the spoke reads age alone; add one: sops rotate --add-age RECIPIENT --in-place FILE",
			ErrKey, orNobody(with))
	}
	if m.UnencryptedCommentRegex != "" || m.EncryptedCommentRegex != "" {
		return fmt.Errorf("%w: comments say what is encrypted in it, which the spoke does not read; use encrypted_regex", ErrFile)
	}
	if m.MAC == "" || m.LastModified == "" {
		return fmt.Errorf("%w: it has no message authentication code", ErrFile)
	}
	return nil
}

func orNobody(names []string) string {
	if len(names) == 0 {
		return "nobody"
	}
	return strings.Join(names, ", ")
}

// tree is a file in memory.
type tree struct {
	meta      metadata
	documents []*yaml.Node // mappings; without the metadata
	numbers   bool         // every number is a floating one, as JSON has them
}

// walker decrypts in place and computes the code on the way.
type walker struct {
	tree   *tree
	key    []byte
	mac    hash.Hash
	rules  rules
	values []string
}

type rules struct {
	metadata
	unencrypted, encrypted *regexp.Regexp
}

func (t *tree) decrypt(key []byte) ([]string, error) {
	w := &walker{tree: t, key: key, mac: sha512.New(), rules: rules{metadata: t.meta}}
	for _, r := range []struct {
		text string
		into **regexp.Regexp
	}{{t.meta.UnencryptedRegex, &w.rules.unencrypted}, {t.meta.EncryptedRegex, &w.rules.encrypted}} {
		if r.text == "" {
			continue
		}
		var err error
		if *r.into, err = regexp.Compile(r.text); err != nil {
			return nil, errors.New("its rule about what is encrypted is no regular expression")
		}
	}
	if t.meta.MACOnlyEncrypted {
		other := sha256.Sum256([]byte("sops")) // sets the codes of such files apart from those of all others
		w.mac.Write(other[:])
	}
	for _, d := range t.documents {
		if err := w.walk(d, nil); err != nil {
			return nil, err
		}
	}
	at, err := time.Parse(time.RFC3339, t.meta.LastModified)
	if err != nil {
		return nil, errors.New("the time of its last change is none")
	}
	want, _, err := open(t.meta.MAC, key, at.Format(time.RFC3339))
	if err != nil {
		return nil, errors.New("its message authentication code was changed")
	}
	if got := fmt.Sprintf("%X", w.mac.Sum(nil)); subtle.ConstantTimeCompare([]byte(got), []byte(want)) != 1 {
		return nil, errors.New("it was changed after it was encrypted: the message authentication code is another one")
	}
	return w.values, nil
}

func (w *walker) walk(n *yaml.Node, path []string) error {
	n.HeadComment, n.LineComment, n.FootComment = "", "", "" // they are encrypted too, and nobody's business
	switch n.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			k := n.Content[i]
			k.HeadComment, k.LineComment, k.FootComment = "", "", ""
			if k.Kind != yaml.ScalarNode || k.ShortTag() != "!!str" {
				return fmt.Errorf("line %d: a key is no text", k.Line)
			}
			if err := w.walk(n.Content[i+1], append(path[:len(path):len(path)], k.Value)); err != nil {
				return err
			}
		}
		return nil
	case yaml.SequenceNode:
		for _, item := range n.Content {
			if err := w.walk(item, path); err != nil {
				return err
			}
		}
		return nil
	case yaml.ScalarNode:
		return w.leaf(n, path)
	}
	return fmt.Errorf("line %d: an alias: SOPS files here have none", n.Line)
}

func (w *walker) leaf(n *yaml.Node, path []string) error {
	if n.ShortTag() == "!!null" {
		return nil
	}
	where := strings.Join(path, ".")
	hidden := w.rules.hides(path)
	if hidden && n.Value != "" {
		if n.ShortTag() != "!!str" {
			return fmt.Errorf("%s: should be encrypted and is not", where)
		}
		text, kind, err := open(n.Value, w.key, strings.Join(path, ":")+":")
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		w.values = append(w.values, text)
		if err := set(n, text, kind); err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
	}
	if hidden || !w.tree.meta.MACOnlyEncrypted {
		said, err := w.tree.authenticated(n)
		if err != nil {
			return fmt.Errorf("%s: %w", where, err)
		}
		w.mac.Write(said)
	}
	return nil
}

// hides tells whether the value at a path is encrypted; of several rules the later ones win, as with the tool.
func (r rules) hides(path []string) bool {
	some := func(match func(string) bool) bool {
		for _, p := range path {
			if match(p) {
				return true
			}
		}
		return false
	}
	hidden := true
	if s := r.UnencryptedSuffix; s != "" && some(func(p string) bool { return strings.HasSuffix(p, s) }) {
		hidden = false
	}
	if s := r.EncryptedSuffix; s != "" {
		hidden = some(func(p string) bool { return strings.HasSuffix(p, s) })
	}
	if r.unencrypted != nil && some(r.unencrypted.MatchString) {
		hidden = false
	}
	if r.encrypted != nil {
		hidden = some(r.encrypted.MatchString)
	}
	return hidden
}

// set makes a node the value that was encrypted.
func set(n *yaml.Node, text, kind string) error {
	line, column := n.Line, n.Column
	n.Style, n.Value = 0, text
	switch kind {
	case "str", "bytes":
		if !utf8.ValidString(text) {
			return errors.New("is no text; encrypt it as a binary file")
		}
		n.SetString(text)
	case "int":
		n.Tag = "!!int"
		if _, err := strconv.Atoi(text); err != nil {
			return errors.New("is no number")
		}
	case "float":
		n.Tag = "!!float"
		if _, err := strconv.ParseFloat(text, 64); err != nil {
			return errors.New("is no number")
		}
	case "bool":
		n.Tag = "!!bool"
		b, err := strconv.ParseBool(text)
		if err != nil {
			return errors.New("is neither true nor false")
		}
		n.Value = strconv.FormatBool(b)
	case "time":
		n.Tag = "!!timestamp"
	default:
		return errors.New("is of a kind that is not known here")
	}
	n.Line, n.Column = line, column
	return nil
}

// authenticated is a value as the code counts it.
func (t *tree) authenticated(n *yaml.Node) ([]byte, error) {
	if n.ShortTag() == "!!str" {
		return []byte(n.Value), nil
	}
	var v any
	if err := n.Decode(&v); err != nil {
		return nil, errors.New("cannot be read")
	}
	switch v := v.(type) {
	case string:
		return []byte(v), nil
	case int:
		if t.numbers {
			return strconv.AppendFloat(nil, float64(v), 'f', -1, 64), nil
		}
		return []byte(strconv.Itoa(v)), nil
	case float64:
		return strconv.AppendFloat(nil, v, 'f', -1, 64), nil
	case bool:
		if v {
			return []byte("True"), nil
		}
		return []byte("False"), nil
	case time.Time:
		return v.MarshalText()
	}
	return nil, errors.New("is of a kind that SOPS does not encrypt")
}

var encrypted = regexp.MustCompile(`^ENC\[AES256_GCM,data:([A-Za-z0-9+/=]*),iv:([A-Za-z0-9+/=]+),tag:([A-Za-z0-9+/=]+),type:([a-z]+)\]$`)

// open decrypts one value.
func open(text string, key []byte, at string) (value, kind string, err error) {
	m := encrypted.FindStringSubmatch(text)
	if m == nil {
		return "", "", errors.New("should be encrypted and is not")
	}
	var parts [3][]byte
	for i := range parts {
		if parts[i], err = base64.StdEncoding.Strict().DecodeString(m[i+1]); err != nil {
			return "", "", errors.New("is damaged")
		}
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return "", "", err
	}
	gcm, err := cipher.NewGCMWithNonceSize(block, len(parts[1]))
	if err != nil || len(parts[2]) != gcm.Overhead() {
		return "", "", errors.New("is damaged")
	}
	out, err := gcm.Open(nil, parts[1], append(parts[0], parts[2]...), []byte(at))
	if err != nil {
		return "", "", errors.New("was changed, moved, or encrypted with another key")
	}
	return string(out), m[4], nil
}
