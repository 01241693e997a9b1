package signer

import (
	"bytes"
	"crypto"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"
)

const (
	tagSignature = 2
	tagPublicKey = 6
	beginKey     = "-----BEGIN PGP PUBLIC KEY BLOCK-----"
	endKey       = "-----END PGP PUBLIC KEY BLOCK-----"
)

// pgpConfig leaves nothing to the library's defaults: they may change, and take SHA-1 in the signatures that
// bind subkeys and user ids.
func pgpConfig() *packet.Config {
	weak := map[crypto.Hash]bool{crypto.MD5: true, crypto.SHA1: true, crypto.RIPEMD160: true}
	return &packet.Config{
		MinRSABits:                  minRSABits,
		RejectHashAlgorithms:        weak,
		RejectMessageHashAlgorithms: weak,
		RejectPublicKeyAlgorithms:   map[packet.PublicKeyAlgorithm]bool{packet.PubKeyAlgoDSA: true, packet.PubKeyAlgoElGamal: true},
		RejectCurves:                map[packet.Curve]bool{packet.CurveSecP256k1: true},
	}
}

// pgpKey is a primary key with its subkeys. The library keeps in what it has read which signatures hold,
// so that it reads anew for every verification and nothing is shared.
type pgpKey struct {
	raw         []byte // its packets
	fingerprint string
	ids         []uint64 // its own and its subkeys'
}

func (k pgpKey) entity() (*openpgp.Entity, error) {
	return openpgp.ReadEntity(packet.NewReader(bytes.NewReader(k.raw)))
}

// readKeyring takes any number of armoured blocks with any number of keys. A key may be there twice, as
// where one copy was exported before and one after its expiry was moved: one of them must do.
func (s *Set) readKeyring(text []byte) (wrong []error) {
	rest := strings.TrimSpace(strings.ReplaceAll(string(text), "\r\n", "\n"))
	for n := 1; rest != ""; n++ {
		if !strings.HasPrefix(rest, beginKey+"\n") {
			first, _, _ := strings.Cut(rest, "\n")
			return append(wrong, fmt.Errorf("block %d begins %q, want %q; export keys with gpg --armor --export", n, first, beginKey))
		}
		at := strings.Index(rest, "\n"+endKey)
		if at < 0 {
			return append(wrong, fmt.Errorf("block %d does not end", n))
		}
		end := at + 1 + len(endKey)
		if err := s.readBlock(rest[:end] + "\n"); err != nil {
			wrong = append(wrong, fmt.Errorf("block %d: %w", n, err))
		}
		rest = strings.TrimSpace(rest[end:])
	}
	return wrong
}

func (s *Set) readBlock(block string) error {
	raw, err := dearmour([]byte(block))
	if err != nil {
		return err
	}
	parts, err := splitKeys(raw)
	if err != nil {
		return err
	}
	var wrong []error
	for _, part := range parts {
		k := pgpKey{raw: part}
		e, err := k.entity()
		if err != nil {
			wrong = append(wrong, fmt.Errorf("read key: %w", err))
			continue
		}
		k.fingerprint = fmt.Sprintf("%X", e.PrimaryKey.Fingerprint)
		k.ids = append(k.ids, e.PrimaryKey.KeyId)
		for _, sub := range e.Subkeys {
			k.ids = append(k.ids, sub.PublicKey.KeyId)
		}
		if _, ok := e.SigningKey(time.Time{}, pgpConfig()); !ok { // a zero time: expiry aside
			wrong = append(wrong, fmt.Errorf("key %s cannot sign: it is revoked, its flags do not say so, or it is too weak "+
				"(SHA-1 in its own signatures, RSA below %d bits, DSA)", k.fingerprint, minRSABits))
			continue
		}
		s.pgp = append(s.pgp, k)
	}
	return errors.Join(wrong...)
}

func dearmour(text []byte) ([]byte, error) {
	b, err := armor.Decode(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("read armour: %w", err)
	}
	raw, err := io.ReadAll(b.Body)
	if err != nil {
		return nil, fmt.Errorf("read armour: %w", err)
	}
	return raw, nil
}

// splitKeys cuts packets into one piece for each primary key.
func splitKeys(raw []byte) ([][]byte, error) {
	var out [][]byte
	packets := packet.NewOpaqueReader(bytes.NewReader(raw))
	for {
		p, err := packets.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		if p.Tag == tagPublicKey {
			out = append(out, nil)
		}
		if len(out) == 0 {
			return nil, fmt.Errorf("packet %d stands before any public key; export keys with gpg --armor --export", p.Tag)
		}
		var b bytes.Buffer
		if err := p.Serialize(&b); err != nil {
			return nil, fmt.Errorf("read key: %w", err)
		}
		out[len(out)-1] = append(out[len(out)-1], b.Bytes()...)
	}
	if len(out) == 0 {
		return nil, errors.New("no keys in it")
	}
	return out, nil
}

func (s Set) verifyPGP(payload, armoured []byte, at, latest time.Time) (Signer, error) {
	sig, err := readSignature(armoured)
	if err != nil {
		return Signer{}, fmt.Errorf("read OpenPGP signature: %w", err)
	}
	id := *sig.IssuerKeyId
	if sig.CreationTime.After(latest) {
		return Signer{}, fmt.Errorf("the OpenPGP signature of key %016X is of %s, which is yet to come here", id, sig.CreationTime.UTC().Format(time.RFC3339))
	}
	// The signature's own end, which its maker chose, is judged at now; a clock that is a little behind must
	// not make it one of the future.
	if sig.SigLifetimeSecs != nil && *sig.SigLifetimeSecs != 0 &&
		latest.After(sig.CreationTime.Add(time.Duration(*sig.SigLifetimeSecs)*time.Second)) {
		return Signer{}, fmt.Errorf("the OpenPGP signature of key %016X has expired, as its maker wanted; have the tag signed again", id)
	}
	var found []*openpgp.Entity
	for _, k := range s.pgp {
		if !slices.Contains(k.ids, id) {
			continue
		}
		e, err := k.entity()
		if err != nil {
			return Signer{}, fmt.Errorf("OpenPGP key %s: %w", k.fingerprint, err)
		}
		found = append(found, e)
	}
	refusal := fmt.Errorf("OpenPGP key %016X: %w", id, ErrUnknownKey)
	for _, e := range found {
		// Of two copies of a key the one that says it is revoked is right.
		if slices.ContainsFunc(found, func(o *openpgp.Entity) bool {
			return bytes.Equal(o.PrimaryKey.Fingerprint, e.PrimaryKey.Fingerprint) && revoked(o, id, latest)
		}) {
			refusal = fmt.Errorf("OpenPGP key %X is revoked; have the tag signed with a current key", e.PrimaryKey.Fingerprint)
			continue
		}
		who, err := verifyBy(e, sig, payload, at)
		if err == nil {
			return who, nil
		}
		refusal = err
	}
	return Signer{}, refusal
}

// readSignature takes exactly one packet, over bytes as they are: a signature over text would hold for
// other line ends too.
func readSignature(armoured []byte) (*packet.Signature, error) {
	raw, err := dearmour(armoured)
	if err != nil {
		return nil, err
	}
	packets := packet.NewOpaqueReader(bytes.NewReader(raw))
	first, err := packets.Next()
	if err != nil {
		return nil, err
	}
	if _, err := packets.Next(); !errors.Is(err, io.EOF) || first.Tag != tagSignature {
		return nil, errors.New("it is not one signature alone")
	}
	p, err := first.Parse()
	if err != nil {
		return nil, err
	}
	sig, ok := p.(*packet.Signature)
	switch {
	case !ok:
		return nil, errors.New("it is of a version that is not known")
	case sig.Version != 4 && sig.Version != 6:
		return nil, fmt.Errorf("it is of version %d, want 4 or 6", sig.Version)
	case sig.SigType != packet.SigTypeBinary:
		return nil, fmt.Errorf("it is of type %#x, want one over bytes", sig.SigType)
	case pgpConfig().RejectMessageHashAlgorithm(sig.Hash):
		return nil, fmt.Errorf("it uses %v, which is broken; sign with SHA-256 or better", sig.Hash)
	case sig.IssuerKeyId == nil:
		return nil, errors.New("it does not name its key")
	}
	for _, n := range sig.Notations {
		if n.IsCritical {
			return nil, fmt.Errorf("it holds the notation %q, which is critical and not known", n.Name)
		}
	}
	return sig, nil
}

// revoked takes any revocation, whatever its reason and time, for the primary key or the subkey that
// signed, as gpg does: whoever holds a withdrawn key may sign with any time.
func revoked(e *openpgp.Entity, id uint64, latest time.Time) bool {
	if e.Revoked(latest) {
		return true
	}
	return slices.ContainsFunc(e.Subkeys, func(sub openpgp.Subkey) bool {
		return sub.PublicKey.KeyId == id && sub.Revoked(nil, time.Time{})
	})
}

// verifyBy asks the library for the key of that id with expiry left aside, and judges its time itself, by
// the latest of the key's own signatures: gpg replaces those when an expiry is moved, and with them what
// the key was when the tag was signed.
func verifyBy(e *openpgp.Entity, sig *packet.Signature, payload []byte, at time.Time) (Signer, error) {
	shown, cfg := fmt.Sprintf("%X", e.PrimaryKey.Fingerprint), pgpConfig()
	key, ok := e.SigningKeyById(time.Time{}, *sig.IssuerKeyId, cfg)
	if !ok || (key.SelfSignature.EmbeddedSignature != nil && cfg.RejectHashAlgorithm(key.SelfSignature.EmbeddedSignature.Hash)) {
		return Signer{}, fmt.Errorf("OpenPGP key %s may not sign with %016X: its flags do not say so, or it is too weak", shown, *sig.IssuerKeyId)
	}
	hash, err := sig.PrepareVerify()
	if err != nil {
		return Signer{}, fmt.Errorf("OpenPGP signature of %s: %w", shown, err)
	}
	hash.Write(payload)
	if err := key.PublicKey.VerifySignature(hash, sig); err != nil {
		return Signer{}, fmt.Errorf("OpenPGP signature of %s: what is signed is not what is here, or the signature is damaged: %w", shown, err)
	}
	// Both times: the tagger's is what was signed, the signature's is when the key was used.
	for _, t := range []time.Time{at, sig.CreationTime} {
		if err := validAt(e, key, shown, t, cfg); err != nil {
			return Signer{}, err
		}
	}
	return signerOf(e, key.PublicKey), nil
}

// signer is the primary key's.
func (k pgpKey) signer() Signer {
	e, err := k.entity()
	if err != nil { // it was read before
		return Signer{Kind: OpenPGP, Fingerprint: k.fingerprint}
	}
	return signerOf(e, e.PrimaryKey)
}

func signerOf(e *openpgp.Entity, key *packet.PublicKey) Signer {
	who := Signer{Kind: OpenPGP, Fingerprint: fmt.Sprintf("%X", e.PrimaryKey.Fingerprint), Algorithm: algorithm(key)}
	if _, identity := e.PrimaryIdentity(time.Time{}, pgpConfig()); identity != nil {
		who.Principal = identity.Name
	}
	return who
}

func validAt(e *openpgp.Entity, key openpgp.Key, shown string, t time.Time, cfg *packet.Config) error {
	type life struct {
		key *packet.PublicKey
		sig *packet.Signature
	}
	lives := []life{{e.PrimaryKey, key.PrimarySelfSignature}, {key.PublicKey, key.SelfSignature}}
	if direct, err := e.LatestValidDirectSignature(time.Time{}, cfg); err == nil && direct != nil {
		lives = append(lives, life{e.PrimaryKey, direct})
	}
	for _, l := range lives {
		var before time.Time
		if secs := l.sig.KeyLifetimeSecs; secs != nil && *secs != 0 {
			before = l.key.CreationTime.Add(time.Duration(*secs) * time.Second)
		}
		if err := between(shown, t, l.key.CreationTime, before); err != nil {
			return err
		}
	}
	return nil
}

func algorithm(k *packet.PublicKey) string {
	switch k.PubKeyAlgo {
	case packet.PubKeyAlgoRSA, packet.PubKeyAlgoRSASignOnly:
		if n, err := k.BitLength(); err == nil {
			return "rsa" + strconv.Itoa(int(n))
		}
	case packet.PubKeyAlgoEd25519:
		return "ed25519"
	case packet.PubKeyAlgoEd448:
		return "ed448"
	case packet.PubKeyAlgoECDSA, packet.PubKeyAlgoEdDSA:
		if c, err := k.Curve(); err == nil {
			return strings.ToLower(string(c))
		}
	}
	return "algorithm " + strconv.Itoa(int(k.PubKeyAlgo))
}
