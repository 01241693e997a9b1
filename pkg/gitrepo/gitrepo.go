// Package gitrepo reads tags and trees from a git repository, near or far. It is the only door to go-git.
//
// A repository on the same machine is opened in place and only read. Of a remote one, tags are listed
// without fetching, and of what is asked for one commit is fetched, without history, into a bare
// repository that is kept open. Objects are handed out raw, each checked against its id.
//
// The package runs no git command, checks out nothing and verifies no signature.
package gitrepo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/go-git/go-git/v5/plumbing"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// What stands in the way. Errors wrap one of these where one fits; others are of the disk or the network.
var (
	// Try again later, or correct the URL or credentials.
	ErrUnreachable = errors.New("git repository is unreachable")
	ErrEmpty       = errors.New("git repository is empty")

	// It will not get better by itself.
	ErrNotFound    = errors.New("not found")
	ErrTooLarge    = errors.New("too large")
	ErrUnsupported = errors.New("not supported")
)

// Config says where a repository is and how much of it is taken.
type Config struct {
	URL string // https, ssh, scp-like (user@host:path), file:// or a path
	Dir string // a bare repository is kept here for a remote one; unused for a local one

	// As those of Credential; With sets them.
	KnownHosts   string // empty: the user's own
	SSHKey       string // empty: the ssh agent
	Username     string
	PasswordFile string
	Authorities  string

	MaxBytes   int64  // of one transfer, and of what it holds unpacked; 0: 1 GiB
	MaxContent int64  // of one object, and of all files under one path, which are held in memory; 0: 128 MiB
	Cache      *Cache // of objects, shared with other repositories; nil: one of 32 MiB of its own
	Log        *slog.Logger
}

const (
	defaultMaxBytes   = 1 << 30
	defaultMaxContent = 128 << 20
)

// Ref is a tag as the repository lists it.
type Ref struct {
	Name string // short
	Hash string // hexadecimal id of the tag object, of the commit where the tag is lightweight
}

// Snapshot is what a tag holds below a path.
type Snapshot struct {
	Files     []provenance.File // sorted by path; the data is shared: read only
	Proof     provenance.Proof
	Commit    string // hexadecimal id
	TagObject string // hexadecimal id; empty for a lightweight tag
}

// origin is where refs and objects come from.
type origin interface {
	// refs lists all by full name, "HEAD" included where it points somewhere.
	refs(ctx context.Context) (map[string]plumbing.Hash, error)
	// fetch makes an object and what it needs available; whole asks for its history too.
	fetch(ctx context.Context, want []plumbing.Hash, whole bool) error
	objects() *objects
	close() error
}

// Repository is safe for concurrent use; calls wait for each other.
type Repository struct {
	mu     sync.Mutex
	cfg    Config
	shown  string // the URL without its password
	origin origin
	tags   map[string]fetched // by short name
}

// fetched is a tag that is here, and what lies beside it.
type fetched struct {
	hash       plumbing.Hash
	signatures []plumbing.Hash // what refs/signatures/TAG/* name, in their order
}

// Open checks that a local repository is there. A remote one is first asked by Tags or Fetch.
func Open(_ context.Context, cfg Config) (*Repository, error) {
	cfg.MaxBytes = cmp.Or(cfg.MaxBytes, defaultMaxBytes)
	cfg.MaxContent = min(cmp.Or(cfg.MaxContent, defaultMaxContent), cfg.MaxBytes)
	cfg.Log = cmp.Or(cfg.Log, slog.New(slog.DiscardHandler))
	if cfg.Cache == nil {
		cfg.Cache = NewCache(defaultCache)
	}
	r := &Repository{cfg: cfg, shown: redact(cfg.URL), tags: map[string]fetched{}}
	path, isLocal, err := localPath(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", r.shown, err)
	}
	if isLocal {
		r.origin, err = openLocal(path, cfg)
	} else {
		r.origin, err = openRemote(cfg)
	}
	if err != nil {
		return nil, r.explain("open", err)
	}
	return r, nil
}

// Close releases files; the folder stays for the next Open.
func (r *Repository) Close() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.origin.close()
}

// Tags lists the tags, sorted by name. No object is fetched.
func (r *Repository) Tags(ctx context.Context) ([]Ref, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	refs, err := r.origin.refs(ctx)
	if err != nil {
		return nil, r.explain("list tags of", err)
	}
	tags := []Ref{}
	for name, hash := range refs {
		if short, ok := strings.CutPrefix(name, "refs/tags/"); ok {
			tags = append(tags, Ref{Name: short, Hash: hash.String()})
		}
	}
	slices.SortFunc(tags, func(a, b Ref) int { return strings.Compare(a.Name, b.Name) })
	return tags, nil
}

// Fetch makes one tag available to Snapshot, as it is now, with the tag objects of further signers (see
// provenance.Proof); its commit comes without history.
// ErrNotFound: the repository has no such tag (any more).
func (r *Repository) Fetch(ctx context.Context, tag string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	refs, err := r.origin.refs(ctx)
	if err != nil {
		return r.explain("fetch tag "+tag+" of", err)
	}
	hash, ok := refs["refs/tags/"+tag]
	if !ok {
		return r.explain("fetch from", fmt.Errorf("tag %q: %w", tag, ErrNotFound))
	}
	got := fetched{hash: hash, signatures: signatures(refs, tag)}
	if err := r.origin.fetch(ctx, append([]plumbing.Hash{hash}, got.signatures...), false); err != nil {
		return r.explain("fetch tag "+tag+" of", err)
	}
	r.tags[tag] = got
	return nil
}

// signatures are what further signers pushed beside a tag, at most as many as count.
func signatures(refs map[string]plumbing.Hash, tag string) []plumbing.Hash {
	var all []plumbing.Hash
	for _, name := range slices.Sorted(maps.Keys(refs)) {
		if who, ok := strings.CutPrefix(name, "refs/signatures/"+tag+"/"); ok && who != "" && len(all) < provenance.MaxCosigned {
			all = append(all, refs[name])
		}
	}
	return all
}

// Snapshot reads a tag that Fetch has fetched. ErrNotFound: the path is not in it.
func (r *Repository) Snapshot(tag, path string) (Snapshot, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	got, ok := r.tags[tag]
	if !ok {
		return Snapshot{}, fmt.Errorf("read tag %s of %s: it was not fetched", tag, r.shown)
	}
	s, err := r.origin.objects().snapshot(got.hash, path)
	if err != nil {
		return Snapshot{}, fmt.Errorf("read %s at tag %s of %s: %w", path, tag, r.shown, err)
	}
	s.Proof.TagName = tag
	s.Proof.Cosigned = r.cosigned(s, got)
	return s, nil
}

// cosigned are the tag objects of further signers of what s is of. What is something else is left out, and
// said: whoever may push there could otherwise keep a release from everybody.
func (r *Repository) cosigned(s Snapshot, got fetched) [][]byte {
	var all [][]byte
	seen := map[plumbing.Hash]bool{got.hash: true}
	for _, h := range got.signatures {
		if seen[h] {
			continue
		}
		seen[h] = true
		raw, err := r.origin.objects().meta(h, plumbing.TagObject)
		var t provenance.Tag
		if err == nil {
			t, err = provenance.ParseTag(raw)
		}
		switch {
		case err != nil:
			r.cfg.Log.Warn("a ref beside a tag names no tag object and is left out", "tag", s.Proof.TagName, "object", h.String(), logging.Error, err)
		case s.TagObject == "" || t.Kind != kindCommit.String() || t.Object != s.Commit || t.Name != s.Proof.TagName:
			r.cfg.Log.Warn("a tag object beside a tag is of another name or commit and is left out", "tag", s.Proof.TagName, "object", h.String())
		default:
			all = append(all, raw)
		}
	}
	return all
}

// FetchRevision makes a branch, a tag or a full commit id available to SnapshotCommit, in this order of
// preference; the empty revision is the default branch.
func (r *Repository) FetchRevision(ctx context.Context, rev string) (commit string, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	hash, err := r.fetchRevision(ctx, rev)
	if err != nil {
		return "", r.explain(fmt.Sprintf("fetch revision %q of", rev), err)
	}
	_, peeled, _, err := r.origin.objects().commit(hash)
	if err != nil {
		return "", r.explain(fmt.Sprintf("read revision %q of", rev), err)
	}
	return peeled.String(), nil
}

func (r *Repository) fetchRevision(ctx context.Context, rev string) (plumbing.Hash, error) {
	refs, err := r.origin.refs(ctx)
	if err != nil {
		return plumbing.ZeroHash, err
	}
	for _, name := range []string{"refs/heads/" + rev, "refs/tags/" + rev, rev} {
		if rev == "" {
			name = "HEAD"
		}
		if hash, ok := refs[name]; ok {
			return hash, r.origin.fetch(ctx, []plumbing.Hash{hash}, false)
		}
	}
	if !plumbing.IsHash(rev) {
		return plumbing.ZeroHash, fmt.Errorf("no branch, tag or full commit id of that name: %w", ErrNotFound)
	}
	hash := plumbing.NewHash(rev)
	if err := r.origin.fetch(ctx, []plumbing.Hash{hash}, false); err == nil || errors.Is(err, ErrTooLarge) || ctx.Err() != nil {
		return hash, err
	}
	// Many servers hand out only what a ref points at: take all that refs reach, and look again.
	all := []plumbing.Hash{}
	for name, h := range refs {
		if strings.HasPrefix(name, "refs/heads/") || strings.HasPrefix(name, "refs/tags/") {
			all = append(all, h)
		}
	}
	if err := r.origin.fetch(ctx, all, true); err != nil {
		return plumbing.ZeroHash, err
	}
	if !r.origin.objects().has(hash) {
		return plumbing.ZeroHash, fmt.Errorf("no branch or tag reaches that commit: %w", ErrNotFound)
	}
	return hash, nil
}

// SnapshotCommit reads the files below path at a commit that FetchRevision returned.
func (r *Repository) SnapshotCommit(commit, path string) ([]provenance.File, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, err := r.origin.objects().snapshot(plumbing.NewHash(commit), path)
	if err != nil {
		return nil, fmt.Errorf("read %s at commit %s of %s: %w", path, commit, r.shown, err)
	}
	return s.Files, nil
}

// explain names the repository and, where a person can find out more, the command to type.
func (r *Repository) explain(doing string, err error) error {
	switch {
	case errors.Is(err, ErrUnreachable):
		return fmt.Errorf("%s %s: %w; see: git ls-remote %s", doing, r.shown, err, r.shown)
	case errors.Is(err, ErrEmpty):
		return fmt.Errorf("%s %s: %w: it has no branch and no tag yet; see: git ls-remote %s", doing, r.shown, err, r.shown)
	}
	return fmt.Errorf("%s %s: %w", doing, r.shown, err)
}

// unreachable keeps the cause's first line: servers answer with whole pages.
func unreachable(cause error) error {
	text, _, _ := strings.Cut(strings.TrimSpace(cause.Error()), "\n")
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	switch {
	case strings.Contains(text, "signed by unknown authority"):
		text += " (name its certificate as authorities in the list `git:`)"
	case strings.Contains(text, "authentication required"), strings.Contains(text, "authorization failed"):
		text += " (name username and passwordFile in the list `git:`)"
	}
	return fmt.Errorf("%w: %s", ErrUnreachable, text)
}

func redact(raw string) string {
	if u, err := url.Parse(raw); err == nil && u.Scheme != "" && u.User != nil {
		return u.Redacted()
	}
	return raw
}
