package provenance

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
	openpgp "github.com/ProtonMail/go-crypto/openpgp/v2"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
)

// vendor is somebody with one key.
type vendor struct {
	name    string
	signers string // what a provider writes down of it
	sign    func(t testing.TB, payload []byte) []byte
	keyFile string          // of an SSH key
	entity  *openpgp.Entity // of an OpenPGP key
}

func (v vendor) set(t testing.TB) signer.Set { return keys(t, v.signers) }

func keys(t testing.TB, texts ...string) signer.Set {
	t.Helper()
	var sources []signer.Source
	for i, s := range texts {
		sources = append(sources, signer.Source{Name: fmt.Sprintf("file %d", i), Text: []byte(s)})
	}
	set, err := signer.Read(signer.Git, sources...)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// sshVendor has a key of ssh-keygen, and signs with it.
func sshVendor(t testing.TB, options string, args ...string) vendor {
	t.Helper()
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skip("ssh-keygen is absent")
	}
	file := filepath.Join(t.TempDir(), "key")
	if out, err := exec.Command("ssh-keygen", append([]string{"-q", "-N", "", "-C", "", "-f", file}, args...)...).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	public, err := os.ReadFile(file + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	v := vendor{name: "ssh " + strings.Join(args, " "), keyFile: file, signers: "release@example.com " + options + " " + string(public)}
	v.sign = func(t testing.TB, payload []byte) []byte { return sshSign(t, file, "git", payload) }
	return v
}

func sshSign(t testing.TB, file, namespace string, payload []byte) []byte {
	t.Helper()
	cmd := exec.Command("ssh-keygen", "-q", "-Y", "sign", "-n", namespace, "-f", file)
	cmd.Stdin = bytes.NewReader(payload)
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("ssh-keygen -Y sign: %v", err)
	}
	return out
}

// pgpVendor has a key of the OpenPGP library, as not every machine has gpg.
func pgpVendor(t testing.TB, name string, cfg *packet.Config) vendor {
	t.Helper()
	e, err := openpgp.NewEntity(name, "", "release@example.com", cfg)
	if err != nil {
		t.Fatal(err)
	}
	v := vendor{name: name, entity: e, signers: public(t, e)}
	v.sign = func(t testing.TB, payload []byte) []byte { return pgpSign(t, e, payload, cfg) }
	return v
}

func pgpSign(t testing.TB, e *openpgp.Entity, payload []byte, cfg *packet.Config) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := openpgp.ArmoredDetachSign(&b, []*openpgp.Entity{e}, bytes.NewReader(payload), &openpgp.SignParams{Config: cfg}); err != nil {
		t.Fatal(err)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}

func public(t testing.TB, e *openpgp.Entity) string {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := e.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func pgpConfig(algorithm packet.PublicKeyAlgorithm, at time.Time) *packet.Config {
	return &packet.Config{Algorithm: algorithm, RSABits: 2048, Time: func() time.Time { return at }}
}

// vendors are one of each kind of signature.
func vendors(t testing.TB, at time.Time) []vendor {
	return []vendor{
		sshVendor(t, "", "-t", "ed25519"),
		sshVendor(t, "", "-t", "ecdsa", "-b", "256"),
		sshVendor(t, "", "-t", "rsa", "-b", "2048"),
		pgpVendor(t, "pgp ed25519", pgpConfig(packet.PubKeyAlgoEdDSA, at)),
		pgpVendor(t, "pgp rsa", pgpConfig(packet.PubKeyAlgoRSA, at)),
	}
}

// tagged is an instant of the tests: tags are made then, and looked at an hour later.
func tagged() time.Time { return time.Unix(1_790_000_000, 0).UTC() }

func later() time.Time { return tagged().Add(time.Hour) }

// release is a chain without git: the sample at the root of a commit, to be tagged.
func release(t testing.TB) (Proof, string) {
	t.Helper()
	return releaseOf(t, sample)
}

func releaseOf(t testing.TB, files []File) (Proof, string) {
	t.Helper()
	tree, err := TreeID(files)
	if err != nil {
		t.Fatal(err)
	}
	commit := fmt.Appendf(nil, "tree %s\nauthor v <v@example.com> %d +0000\ncommitter v <v@example.com> %[2]d +0000\n\nfirst\n", tree, tagged().Unix())
	id, err := ObjectID("commit", commit)
	if err != nil {
		t.Fatal(err)
	}
	return Proof{Commit: commit, Trees: [][]byte{rawTree(t, files)}, Path: "."}, fmt.Sprintf("%x", id)
}

// rawTree is the tree object of the files' root.
func rawTree(t testing.TB, files []File) []byte {
	t.Helper()
	dir := map[string][]File{}
	var entries []File
	for _, f := range files {
		if name, _, ok := strings.Cut(f.Path, "/"); ok {
			if dir[name] == nil {
				entries = append(entries, File{Path: name + "/"})
			}
			f.Path = f.Path[len(name)+1:]
			dir[name] = append(dir[name], f)
		} else {
			entries = append(entries, f)
		}
	}
	slices.SortFunc(entries, byPath)
	var raw []byte
	for _, e := range entries {
		name, isDir := strings.CutSuffix(e.Path, "/")
		mode, kind, content := ModeFile, "blob", e.Data
		if isDir {
			mode, kind, content = ModeDir, "tree", rawTree(t, dir[name])
		} else if e.Executable {
			mode = ModeExecutable
		}
		id, err := ObjectID(kind, content)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(fmt.Appendf(raw, "%s %s\x00", mode, name), id[:]...)
	}
	return raw
}

// tagPayload is the tag object up to its signature.
func tagPayload(commit, name, message string) []byte {
	return fmt.Appendf(nil, "object %s\ntype commit\ntag %s\ntagger v <v@example.com> %d +0000\n\n%s", commit, name, tagged().Unix(), message)
}

func signed(t testing.TB, v vendor, payload []byte) []byte {
	t.Helper()
	return append(bytes.Clone(payload), v.sign(t, payload)...)
}

func armoured(t testing.TB, sig *packet.Signature) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.SignatureType, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := sig.Serialize(w); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return append(bytes.TrimRight(b.Bytes(), "\n"), '\n')
}
