package gitrepo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/go-git/go-billy/v5/osfs"
	"github.com/go-git/go-git/v5"
	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/capability"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp/sideband"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/go-git/go-git/v5/plumbing/transport/client"
	githttp "github.com/go-git/go-git/v5/plumbing/transport/http"
	gitssh "github.com/go-git/go-git/v5/plumbing/transport/ssh"
	"golang.org/x/crypto/ssh"
)

const (
	dialTimeout = 15 * time.Second
	maxPacks    = 64 // fetches kept before the cache starts anew
)

// remote fetches into a bare repository of its own, which is a cache: it may be lost at any time.
type remote struct {
	cfg   Config
	ep    *transport.Endpoint
	store *objects
	log   *slog.Logger
}

func openRemote(cfg Config) (*remote, error) {
	if cfg.Dir == "" {
		return nil, errors.New("a remote repository needs a folder to be kept in")
	}
	ep, err := transport.NewEndpoint(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read repository URL: %w", err)
	}
	r := &remote{cfg: cfg, ep: ep, log: cfg.Log}
	if err = r.prepare(); err == nil {
		r.store, err = newObjects(cfg, r.objectsFolder)
	}
	if err != nil {
		r.log.Warn("git cache cannot be read and starts anew", "path", cfg.Dir, "error", err)
		if err := r.renew(); err != nil {
			return nil, err
		}
		if r.store, err = newObjects(cfg, r.objectsFolder); err != nil {
			return nil, fmt.Errorf("open git cache %s: %w", cfg.Dir, err)
		}
	}
	return r, r.tidy()
}

func (r *remote) objectsFolder() (string, error) { return filepath.Join(r.cfg.Dir, "objects"), nil }

// prepare makes the repository where there is none, and looks at the one that there is.
func (r *remote) prepare() error {
	if _, err := os.Stat(filepath.Join(r.cfg.Dir, "HEAD")); errors.Is(err, os.ErrNotExist) {
		if _, err := git.PlainInit(r.cfg.Dir, true); err != nil {
			return fmt.Errorf("make git cache %s: %w", r.cfg.Dir, err)
		}
	}
	s, err := openStorage(osfs.New(r.cfg.Dir))
	if err == nil {
		err = s.Close()
	}
	if err != nil {
		return fmt.Errorf("open git cache %s: %w", r.cfg.Dir, err)
	}
	return nil
}

// renew empties the cache. Only what a bare repository consists of is removed: the folder was named by a
// person, who may have named the wrong one.
func (r *remote) renew() error {
	for _, name := range []string{"objects", "refs", "packed-refs", "config", "HEAD"} {
		if err := os.RemoveAll(filepath.Join(r.cfg.Dir, name)); err != nil {
			return fmt.Errorf("empty git cache: %w", err)
		}
	}
	return r.prepare()
}

func (r *remote) packDir() string { return filepath.Join(r.cfg.Dir, "objects", "pack") }

// tidy removes what a killed fetch left, and bounds the cache.
func (r *remote) tidy() error {
	parts, err := filepath.Glob(filepath.Join(r.packDir(), tmpPrefix+"*"))
	if err != nil {
		return err
	}
	for _, p := range parts {
		if err := os.Remove(p); err != nil {
			return fmt.Errorf("tidy git cache: %w", err)
		}
	}
	packs, err := filepath.Glob(filepath.Join(r.packDir(), "pack-*.pack"))
	if err != nil {
		return err
	}
	size := int64(0)
	for _, p := range packs {
		if info, err := os.Stat(p); err == nil {
			size += info.Size()
		}
	}
	if len(packs) <= maxPacks && size <= r.cfg.MaxBytes {
		return nil
	}
	return r.startAnew()
}

func (r *remote) startAnew() error {
	if err := r.renew(); err != nil {
		return err
	}
	return r.store.reopen()
}

func (r *remote) objects() *objects { return r.store }

func (r *remote) close() error { return r.store.close() }

func (r *remote) refs(ctx context.Context) (map[string]plumbing.Hash, error) {
	s, ar, err := r.session(ctx)
	if err != nil {
		return nil, err
	}
	defer s.Close()
	refs := ar.References
	if ar.Head != nil {
		refs["HEAD"] = *ar.Head
	}
	return refs, nil
}

// session connects and hears the server's references. go-git does not take the context while it dials
// and shakes hands over ssh, so this is done aside.
func (r *remote) session(ctx context.Context) (transport.UploadPackSession, *packp.AdvRefs, error) {
	type result struct {
		session transport.UploadPackSession
		refs    *packp.AdvRefs
		err     error
	}
	done := make(chan result, 1)
	go func() {
		s, ar, err := r.connect(ctx)
		done <- result{s, ar, err}
	}()
	select {
	case <-ctx.Done():
		go func() {
			if late := <-done; late.session != nil {
				_ = late.session.Close()
			}
		}()
		return nil, nil, fmt.Errorf("%w: no answer: %w", ErrUnreachable, ctx.Err())
	case got := <-done:
		return got.session, got.refs, got.err
	}
}

func (r *remote) connect(ctx context.Context) (transport.UploadPackSession, *packp.AdvRefs, error) {
	auth, err := r.auth()
	if err != nil {
		return nil, nil, err
	}
	// go-git rewrites the endpoint when it is redirected, and would send the next session's password there.
	ep := *r.ep
	if r.cfg.Authorities != "" && ep.Protocol == "https" {
		if ep.CaBundle, err = readAuthorities(r.cfg.Authorities); err != nil {
			return nil, nil, fmt.Errorf("%w: read authorities: %w", ErrUnreachable, err)
		}
	}
	c, err := client.NewClient(&ep)
	if err != nil {
		return nil, nil, unreachable(err)
	}
	s, err := c.NewUploadPackSession(&ep, auth)
	if err != nil {
		return nil, nil, unreachable(err)
	}
	ar, err := s.AdvertisedReferencesContext(ctx)
	if err != nil {
		_ = s.Close()
		if errors.Is(err, transport.ErrEmptyRemoteRepository) {
			return nil, nil, ErrEmpty
		}
		return nil, nil, unreachable(err)
	}
	return s, ar, nil
}

// timedAuth gives ssh a deadline for dialling.
type timedAuth struct{ gitssh.AuthMethod }

func (a timedAuth) ClientConfig() (*ssh.ClientConfig, error) {
	c, err := a.AuthMethod.ClientConfig()
	if err == nil {
		c.Timeout = dialTimeout
	}
	return c, err
}

func (r *remote) auth() (transport.AuthMethod, error) {
	password := ""
	if r.cfg.PasswordFile != "" {
		var err error
		if password, err = readPassword(r.cfg.PasswordFile); err != nil {
			return nil, fmt.Errorf("%w: read password: %w", ErrUnreachable, err)
		}
	}
	if r.ep.Protocol != "ssh" {
		if password == "" {
			return nil, nil // what the URL holds, if anything
		}
		return &githttp.BasicAuth{Username: cmp.Or(r.cfg.Username, r.ep.User, gitssh.DefaultUsername), Password: password}, nil
	}
	return r.sshAuth(password)
}

func (r *remote) sshAuth(passphrase string) (transport.AuthMethod, error) {
	user := r.ep.User
	if user == "" {
		user = gitssh.DefaultUsername
	}
	var files []string
	if r.cfg.KnownHosts != "" {
		files = []string{r.cfg.KnownHosts}
	}
	hosts, err := gitssh.NewKnownHostsDb(files...)
	if err != nil {
		return nil, fmt.Errorf("%w: read known hosts: %w; make the file with: ssh-keyscan %s, and name it as knownHosts in the list `git:`", ErrUnreachable, err, r.ep.Host)
	}
	port := r.ep.Port
	if port == 0 {
		port = gitssh.DefaultPort
	}
	helper := gitssh.HostKeyCallbackHelper{HostKeyCallback: hosts.HostKeyCallback(),
		HostKeyAlgorithms: hosts.HostKeyAlgorithms(net.JoinHostPort(r.ep.Host, strconv.Itoa(port)))}
	if r.cfg.SSHKey == "" {
		agent, err := gitssh.NewSSHAgentAuth(user)
		if err != nil {
			return nil, fmt.Errorf("%w: no ssh key is configured (sshKey, in the list `git:`) and no ssh agent answers: %w", ErrUnreachable, err)
		}
		agent.HostKeyCallbackHelper = helper
		return timedAuth{agent}, nil
	}
	keys, err := gitssh.NewPublicKeysFromFile(user, r.cfg.SSHKey, passphrase)
	if err != nil {
		return nil, fmt.Errorf("%w: read ssh key %s: %w", ErrUnreachable, r.cfg.SSHKey, err)
	}
	keys.HostKeyCallbackHelper = helper
	return timedAuth{keys}, nil
}

func (r *remote) fetch(ctx context.Context, want []plumbing.Hash, whole bool) error {
	if !whole && len(want) == 1 && r.store.has(want[0]) {
		// Packs arrive whole or not at all; still, what cannot be read is fetched again.
		if _, _, _, err := r.store.commit(want[0]); err == nil || errors.Is(err, ErrUnsupported) {
			return nil
		}
		if err := r.startAnew(); err != nil {
			return err
		}
	}
	if err := r.tidy(); err != nil {
		return err
	}
	if err := r.transfer(ctx, want, whole); err != nil {
		return err
	}
	return r.store.refresh()
}

func (r *remote) transfer(ctx context.Context, want []plumbing.Hash, whole bool) (err error) {
	s, ar, err := r.session(ctx)
	if err != nil {
		return err
	}
	defer s.Close()
	req := packp.NewUploadPackRequestFromCapabilities(ar.Capabilities)
	req.Wants = want
	if ar.Capabilities.Supports(capability.NoProgress) {
		_ = req.Capabilities.Set(capability.NoProgress) // a known name without a value cannot fail
	}
	if !whole && ar.Capabilities.Supports(capability.Shallow) {
		_ = req.Capabilities.Set(capability.Shallow)
		req.Depth = packp.DepthCommits(1)
	}
	// No "have" is sent: with a depth, servers take it into account for thin packs only, which go-git
	// cannot read.
	res, err := s.UploadPack(ctx, req)
	if err != nil {
		return unreachable(err)
	}
	defer res.Close()
	var pack io.Reader = res
	switch {
	case req.Capabilities.Supports(capability.Sideband64k):
		pack = sideband.NewDemuxer(sideband.Sideband64k, res)
	case req.Capabilities.Supports(capability.Sideband):
		pack = sideband.NewDemuxer(sideband.Sideband, res)
	}
	return r.storePack(pack)
}
