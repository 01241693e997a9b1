package evilhub

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Key is somebody's SSH key, and its line of a file of allowed signers.
type Key struct {
	Signer ssh.Signer
	Line   string
}

// NewKey makes one, listed with these options.
func NewKey(principal, options string) (Key, error) {
	_, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		return Key{}, err
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return Key{}, err
	}
	return Key{s, strings.Join([]string{principal, options, string(ssh.MarshalAuthorizedKey(s.PublicKey()))}, " ")}, nil
}

// Recipe is a release before it is packed: what is signed, by whom, and what is handed out in its place.
type Recipe struct {
	Version string
	Files   []provenance.File // below the distribution's path
	Key     *Key              // nil: the tag is lightweight

	Namespace string                   // of the signature; empty: git
	Inner     string                   // the name in the tag object; empty: Version
	Tagged    time.Time                // zero: a fixed time in the past
	Tag       func(text []byte) []byte // alters the tag object's text before it is signed
	Signed    func(tag []byte) []byte  // alters the signed tag object
	Proof     func(*provenance.Proof)  // alters what is packed
	Handed    []provenance.File        // packed in place of Files; nil: Files
}

// App are the files of a harmless release: one ConfigMap that says its version.
func App(version string) []provenance.File {
	return []provenance.File{
		{Path: "app/kustomization.yaml", Data: []byte("resources:\n- settings.yaml\n")},
		{Path: "app/settings.yaml", Data: fmt.Appendf(nil, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: settings\ndata:\n  release: %q\n", version)},
	}
}

// Evil are the files of what nobody signed: another ConfigMap, and the first with another value.
func Evil(version string) []provenance.File {
	files := App("evil " + version)
	files[0].Data = []byte("resources:\n- settings.yaml\n- evil.yaml\n")
	return append(files, provenance.File{Path: "app/evil.yaml",
		Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: evil\ndata:\n  release: evil\n")})
}

// Pack makes the canonical tar.
func (r Recipe) Pack() ([]byte, error) {
	trees, root, err := layers(r.Files)
	if err != nil {
		return nil, err
	}
	commit := fmt.Appendf(nil, "tree %s\nauthor V <v@example.com> 1700000000 +0000\ncommitter V <v@example.com> 1700000000 +0000\n\n%s\n", root, r.Version)
	proof := provenance.Proof{Commit: commit, Trees: trees, Path: "dist", TagName: r.Version}
	if r.Key != nil {
		if proof.Tag, err = r.tag(commit); err != nil {
			return nil, err
		}
	}
	if r.Proof != nil {
		r.Proof(&proof)
	}
	handed := r.Handed
	if handed == nil {
		handed = r.Files
	}
	return bundle.Pack(handed, proof)
}

func (r Recipe) tag(commit []byte) ([]byte, error) {
	id, err := provenance.ObjectID("commit", commit)
	if err != nil {
		return nil, err
	}
	inner, at := r.Inner, r.Tagged
	if inner == "" {
		inner = r.Version
	}
	if at.IsZero() {
		at = time.Unix(1700000000, 0)
	}
	text := fmt.Appendf(nil, "object %x\ntype commit\ntag %s\ntagger V <v@example.com> %d +0000\n\n%s\n", id[:], inner, at.Unix(), inner)
	if r.Tag != nil {
		text = r.Tag(text)
	}
	namespace := r.Namespace
	if namespace == "" {
		namespace = signer.Git
	}
	block, err := signer.SignSSH(text, r.Key.Signer, namespace)
	if err != nil {
		return nil, err
	}
	signed := append(text, block...)
	if r.Signed != nil {
		signed = r.Signed(signed)
	}
	return signed, nil
}

// layers are the tree objects from the repository's root down to dist, and the root's id.
func layers(files []provenance.File) (trees [][]byte, root string, err error) {
	inner := slices.Clone(files)
	for i := range inner {
		inner[i].Path = strings.TrimPrefix(inner[i].Path, "app/")
	}
	app, err := provenance.TreeID(inner)
	if err != nil {
		return nil, "", err
	}
	dist, id, err := folder("app", app)
	if err != nil {
		return nil, "", err
	}
	top, root, err := folder("dist", id)
	return [][]byte{top, dist}, root, err
}

// folder is the tree of one folder in another.
func folder(name, id string) (tree []byte, treeID string, err error) {
	raw, err := hex.DecodeString(id)
	if err != nil {
		return nil, "", err
	}
	tree = append([]byte("40000 "+name+"\x00"), raw...)
	sum, err := provenance.ObjectID("tree", tree)
	return tree, hex.EncodeToString(sum[:]), err
}

// Offer is that of a packed release.
func Offer(version string, tar []byte) *syncv1.Offer {
	return &syncv1.Offer{Version: version, Digest: string(bundle.DigestOf(tar)), Size: uint64(len(tar)), Variants: []string{"app"}}
}
