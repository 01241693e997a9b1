package identity_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/hub/internal/identity"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// quick is how many of a forge's keys sign fast; they come first.
const quick = 6

// forge makes certificate requests of every shape that it can think of, valid or not, from a few keys: what
// differs is what is asked for, and how.
type forge struct {
	signers []signer
	odd     [][]byte // public keys, SPKI, that nobody here can sign with
}

type signer struct {
	key       crypto.Signer
	spki      []byte
	algorithm pkix.AlgorithmIdentifier
	hash      crypto.Hash
	good      bool // of a kind and size that the authority takes
}

var (
	oidRequested  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 14}
	oidChallenge  = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 7}
	oidSAN        = asn1.ObjectIdentifier{2, 5, 29, 17}
	oidBasic      = asn1.ObjectIdentifier{2, 5, 29, 19}
	oidUsage      = asn1.ObjectIdentifier{2, 5, 29, 15}
	oidExtUsage   = asn1.ObjectIdentifier{2, 5, 29, 37}
	oidConstraint = asn1.ObjectIdentifier{2, 5, 29, 30}
	oidSubjectKey = asn1.ObjectIdentifier{2, 5, 29, 14}
	oidAuthority  = asn1.ObjectIdentifier{2, 5, 29, 35}
	oidOdd        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 99999, 7}
	oidName       = asn1.ObjectIdentifier{2, 5, 4, 3}
	oidOrg        = asn1.ObjectIdentifier{2, 5, 4, 10}
	oidMail       = asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}
)

func newForge(t testing.TB) *forge {
	t.Helper()
	f := &forge{}
	add := func(key crypto.Signer, err error, good bool, hash crypto.Hash, oid asn1.ObjectIdentifier, null bool) {
		if err != nil {
			t.Fatal(err)
		}
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		if err != nil {
			t.Fatal(err)
		}
		s := signer{key: key, spki: spki, hash: hash, good: good, algorithm: pkix.AlgorithmIdentifier{Algorithm: oid}}
		if null {
			s.algorithm.Parameters = asn1.NullRawValue
		}
		f.signers = append(f.signers, s)
	}
	ecdsa256, ecdsa384 := asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 2}, asn1.ObjectIdentifier{1, 2, 840, 10045, 4, 3, 3}
	rsa256 := asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 1, 11}
	for range 4 {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		add(k, err, true, crypto.SHA256, ecdsa256, false)
	}
	for range 2 {
		_, k, err := ed25519.GenerateKey(rand.Reader)
		add(k, err, true, 0, asn1.ObjectIdentifier{1, 3, 101, 112}, false)
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	add(p384, err, true, crypto.SHA384, ecdsa384, false)
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	add(small, err, true, crypto.SHA256, rsa256, true)
	tiny, err := rsa.GenerateKey(rand.Reader, 1024)
	add(tiny, err, false, crypto.SHA256, rsa256, true)

	stranger, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	huge := &rsa.PublicKey{N: new(big.Int).SetBit(new(big.Int).Lsh(big.NewInt(1), 16383), 0, 1), E: 65537}
	for _, public := range []any{huge, &rsa.PublicKey{N: small.N, E: 3}, stranger.Public()} {
		spki, err := x509.MarshalPKIXPublicKey(public)
		if err != nil {
			t.Fatal(err)
		}
		f.odd = append(f.odd, spki)
	}
	type subjectKey struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	for _, k := range []subjectKey{
		{pkix.AlgorithmIdentifier{Algorithm: oidOdd}, asn1.BitString{Bytes: []byte{1, 2, 3}, BitLength: 24}},
		{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 112}}, asn1.BitString{Bytes: make([]byte, 31), BitLength: 248}},
		{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 3, 101, 110}}, asn1.BitString{Bytes: make([]byte, 32), BitLength: 256}}, // X25519
	} {
		f.odd = append(f.odd, der(k))
	}
	parameters := der(struct{ P, Q, G *big.Int }{big.NewInt(23), big.NewInt(11), big.NewInt(4)})
	value := der(big.NewInt(8)) // DSA
	f.odd = append(f.odd, der(subjectKey{pkix.AlgorithmIdentifier{Algorithm: asn1.ObjectIdentifier{1, 2, 840, 10040, 4, 1}, Parameters: asn1.RawValue{FullBytes: parameters}},
		asn1.BitString{Bytes: value, BitLength: 8 * len(value)}}))
	return f
}

func der(v any) []byte {
	b, err := asn1.Marshal(v)
	if err != nil {
		panic(err) // of the test's own values
	}
	return b
}

// words that a name may be made of: other clusters, the hub itself, what splits, ends or looks like them.
var words = []string{"acme/eu-1", "globex/eu-1", "acme/eu-2", "admin", "operator admin", "wheelwright hub", "wheelwright://operator/admin", "wheelwright://cluster/globex/eu-1",
	"acme/eu-1\x00globex/eu-1", "globex/eu-1\x00", "\u202eeu/xebolg", "acme\u2215eu-1", "ａcme/eu-1", "ACME/EU-1", "acme/eu-1 ", "", "*", "*.example.com", "localhost", "../acme/eu-1",
	"CN=globex/eu-1", "acme/eu-1,CN=globex/eu-1", "\xff\xfe", "e\u0301u", strings.Repeat("a/", 300), "'; DROP", "\r\nSubject: admin"}

func (f *forge) word(r *mathrand.Rand) string { return words[r.IntN(len(words))] }

func (f *forge) name(r *mathrand.Rand) []byte {
	tags := []int{asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagT61String, asn1.TagBMPString, asn1.TagOctetString}
	oids := []asn1.ObjectIdentifier{oidName, oidName, oidName, oidOrg, oidMail, oidOdd}
	var sequence []byte
	for range r.IntN(4) {
		var set []byte
		for range 1 + r.IntN(2) {
			value := asn1.RawValue{Tag: tags[min(r.IntN(2*len(tags)), 2*len(tags)-1)%len(tags)], Bytes: []byte(f.word(r))}
			set = append(set, der(struct {
				Type  asn1.ObjectIdentifier
				Value asn1.RawValue
			}{oids[r.IntN(len(oids))], value})...)
		}
		sequence = append(sequence, der(asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: set})...)
	}
	return der(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: sequence})
}

func (f *forge) extension(r *mathrand.Rand) pkix.Extension {
	e := pkix.Extension{Critical: r.IntN(2) == 0}
	switch r.IntN(9) {
	case 0, 1: // names: mail, DNS, URI, address, and kinds that few know
		var all []byte
		for range 1 + r.IntN(4) {
			tag := []int{1, 2, 6, 6, 7, 8, 0}[r.IntN(7)]
			bytes := []byte(f.word(r))
			if tag == 7 {
				bytes = []byte{127, 0, 0, 1}
			}
			all = append(all, der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: tag, Bytes: bytes})...)
		}
		e.Id, e.Value = oidSAN, der(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: all})
	case 2:
		e.Id, e.Value = oidBasic, der(struct {
			CA   bool `asn1:"optional"`
			Path int  `asn1:"optional,default:-1"`
		}{true, r.IntN(9)})
	case 3:
		e.Id, e.Value = oidUsage, der(asn1.BitString{Bytes: []byte{0xff}, BitLength: 8})
	case 4:
		e.Id = oidExtUsage
		e.Value = der([]asn1.ObjectIdentifier{{2, 5, 29, 37, 0}, {1, 3, 6, 1, 5, 5, 7, 3, 1}, {1, 3, 6, 1, 5, 5, 7, 3, 2}}[:1+r.IntN(3)])
	case 5:
		e.Id, e.Value = oidConstraint, der(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: []byte(f.word(r))})
	case 6:
		e.Id, e.Value = []asn1.ObjectIdentifier{oidSubjectKey, oidAuthority}[r.IntN(2)], der([]byte(f.word(r)))
	case 7:
		e.Id, e.Value = oidOdd, []byte(f.word(r))
	default:
		e.Id, e.Value = []asn1.ObjectIdentifier{oidSAN, oidBasic, oidUsage, oidExtUsage}[r.IntN(4)], []byte(f.word(r)) // no DER
	}
	return e
}

func (f *forge) attributes(r *mathrand.Rand) []byte {
	var all []byte
	for range r.IntN(3) {
		var list []pkix.Extension
		for range r.IntN(5) {
			list = append(list, f.extension(r))
		}
		if len(list) > 0 && r.IntN(3) == 0 {
			list = append(list, list[0]) // twice
		}
		oid, value := oidRequested, der(list)
		if r.IntN(8) == 0 {
			oid, value = oidChallenge, der(asn1.RawValue{Tag: asn1.TagPrintableString, Bytes: []byte(f.word(r))})
		}
		all = append(all, der(struct {
			Type   asn1.ObjectIdentifier
			Values asn1.RawValue
		}{oid, asn1.RawValue{Tag: asn1.TagSet, IsCompound: true, Bytes: value}})...)
	}
	return der(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 0, IsCompound: true, Bytes: all})
}

// forged is a request and what may come of it.
type forged struct {
	der   []byte
	spki  []byte // of the key that signed it, where it is the one in it and of a good kind; else nothing may come of it
	shape string
}

// request number n is always the same but for keys and signatures.
func (f *forge) request(t testing.TB, n uint64) forged {
	r := mathrand.New(mathrand.NewPCG(n, 6))
	s := f.signers[r.IntN(quick)]
	if r.IntN(40) == 0 {
		s = f.signers[quick+r.IntN(len(f.signers)-quick)]
	}
	out := forged{spki: s.spki, shape: "signed"}
	if !s.good {
		out.spki, out.shape = nil, "weak key"
	}
	inside := s.spki
	if r.IntN(12) == 0 {
		inside, out.spki, out.shape = f.odd[r.IntN(len(f.odd))], nil, "odd key"
	} else if r.IntN(12) == 0 {
		other := f.signers[r.IntN(len(f.signers))]
		if inside = other.spki; &other.spki[0] != &s.spki[0] {
			out.spki, out.shape = nil, "another's key"
		}
	}
	version := 0
	if r.IntN(30) == 0 {
		version = r.IntN(5) - 2
	}
	info := slices.Concat(der(version), f.name(r), inside, f.attributes(r))
	info = der(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: info})
	digest := info
	if s.hash != 0 {
		h := s.hash.New()
		h.Write(info)
		digest = h.Sum(nil)
	}
	signature, err := s.key.Sign(rand.Reader, digest, s.hash)
	if err != nil {
		t.Fatal(err)
	}
	algorithm := der(s.algorithm)
	switch r.IntN(16) {
	case 0:
		signature[r.IntN(len(signature))] ^= 1 << r.IntN(8)
		out.spki, out.shape = nil, "broken signature"
	case 1:
		signature, out.spki, out.shape = nil, nil, "no signature"
	case 2:
		signature, out.spki, out.shape = signature[:len(signature)/2], nil, "half a signature"
	case 3:
		// An algorithm that does not fit the key, or nobody knows.
		algorithm = der(pkix.AlgorithmIdentifier{Algorithm: oidOdd})
		out.spki, out.shape = nil, "odd algorithm"
	}
	whole := slices.Concat(info, algorithm, der(asn1.BitString{Bytes: signature, BitLength: 8 * len(signature)}))
	out.der = der(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: whole})
	switch r.IntN(24) {
	case 0: // one bit of all of it: what is signed may stay whole, so nothing is known but that it is no other's
		out.der[r.IntN(len(out.der))] ^= 1 << r.IntN(8)
		out.shape += ", a bit turned"
	case 1:
		out.der, out.spki, out.shape = out.der[:r.IntN(len(out.der))], nil, "cut off"
	case 2:
		out.der, out.spki, out.shape = append(out.der, 0), nil, "something after it"
	}
	return out
}

// wrong says what is wrong with a certificate that was issued on a request; empty: nothing.
func (f *forge) wrong(authority *x509.Certificate, req forged, issued []byte, fingerprint [32]byte, cluster fleet.Cluster, latest time.Time) string {
	c, err := x509.ParseCertificate(issued)
	if err != nil {
		return err.Error()
	}
	var known []string
	for _, e := range c.Extensions {
		known = append(known, e.Id.String())
	}
	slices.Sort(known)
	name := pkix.Name{CommonName: string(cluster)}
	switch {
	case req.spki == nil:
		return "nobody showed that they have the key"
	case string(c.RawSubjectPublicKeyInfo) != string(req.spki):
		return "it is of another key"
	case c.Subject.String() != name.String() || len(c.Subject.Names) != 1:
		return "its subject is " + c.Subject.String()
	case len(c.URIs) != 1 || c.URIs[0].String() != "wheelwright://cluster/"+string(cluster):
		return fmt.Sprintf("it names %v", c.URIs)
	case len(c.DNSNames)+len(c.EmailAddresses)+len(c.IPAddresses) > 0:
		return "it names hosts"
	case c.IsCA || !c.BasicConstraintsValid || c.MaxPathLen > 0:
		return "it is an authority's"
	case c.KeyUsage != x509.KeyUsageDigitalSignature || len(c.ExtKeyUsage) != 1 || c.ExtKeyUsage[0] != x509.ExtKeyUsageClientAuth || len(c.UnknownExtKeyUsage) > 0:
		return fmt.Sprintf("it is for %v %v", c.KeyUsage, c.ExtKeyUsage)
	case len(slices.Compact(slices.Clone(known))) != len(known), !slices.Equal(known, []string{"2.5.29.15", "2.5.29.17", "2.5.29.19", "2.5.29.35", "2.5.29.37"}):
		return fmt.Sprintf("its extensions are %v", known)
	case c.NotAfter.After(latest):
		return "it lasts until " + c.NotAfter.String()
	case fingerprint != sha256.Sum256(issued):
		return "its fingerprint is another one"
	case c.CheckSignatureFrom(authority) != nil:
		return "it is not of the authority"
	}
	return ""
}

// What a request asks for makes no difference: a certificate has the name that the hub's record has, for the key
// whose holder signed, and nothing else.
func TestACertificateIsTheRecordsWhateverTheRequestSays(t *testing.T) {
	count := uint64(3000)
	if os.Getenv("WHEELWRIGHT_FIGURES") != "" {
		count = 1_000_000
	}
	a, err := identity.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	authority, err := x509.ParseCertificate(a.Authorities()[0])
	if err != nil {
		t.Fatal(err)
	}
	f := newForge(t)
	const cluster, ttl = fleet.Cluster("acme/eu-1"), time.Hour
	wrong, issued, refused := 0, 0, map[string]int{}
	for n := range count {
		req := f.request(t, n)
		certificate, err := a.IssueSpoke(req.der, cluster, ttl)
		if err != nil {
			if !errors.Is(err, identity.ErrRequest) {
				t.Errorf("request %d (%s): %v", n, req.shape, err)
			}
			refused[req.shape]++
			continue
		}
		issued++
		if why := f.wrong(authority, req, certificate.DER, certificate.Fingerprint, cluster, time.Now().Add(ttl)); why != "" {
			if wrong++; wrong < 10 {
				t.Errorf("request %d (%s): %s", n, req.shape, why)
			}
		}
	}
	t.Logf("%d issued, refused %v", issued, refused)
	if uint64(issued) < count/10 || len(refused) < 8 {
		t.Errorf("%d of %d issued, refused by shape: %v; want some of every kind", issued, count, refused)
	}
	fmt.Printf("FIGURE csr.wrong-identities %d of %d requests, %d certificates issued\n", wrong, count, issued)
}
