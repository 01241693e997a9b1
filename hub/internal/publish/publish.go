// Package publish judges a tag: it packs what the tag holds as a bundle, builds every variant, and says
// whether the outcome is a release that may be offered, with every reason against it.
//
// It neither watches repositories nor stores anything. The same tag gives
// the same judgement: what can fail for reasons of our own is an error instead, and tried again.
package publish

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/signer"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/pkg/rules"
)

// Seen is a tag, and what it holds below the distribution's path.
type Seen struct {
	Tag, Hash string
	Snapshot  gitrepo.Snapshot
	Err       error // why there can be no snapshot: the reason to reject
}

// renderer builds one variant. A *render.BuildError is the release's fault, any other error is not.
type renderer interface {
	Render(context.Context, render.Source) (render.Result, error)
}

// Config says how to judge. Zero values mean the defaults.
type Config struct {
	Renderer renderer
	MaxBytes int64            // of a bundle; default bundle.MaxSize
	Now      func() time.Time // default time.Now
	Log      *slog.Logger
}

// Publisher is safe for concurrent use.
type Publisher struct {
	cfg    Config
	packer *bundle.Packer
}

// packedBytes bounds what is held of the last bundle of each distribution, to pack the next one faster.
const packedBytes = 32 << 20

// New makes a publisher.
func New(cfg Config) *Publisher {
	if cfg.MaxBytes == 0 {
		cfg.MaxBytes = bundle.MaxSize
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Publisher{cfg, bundle.NewPacker(packedBytes)}
}

// Forget lets go of what is held of a distribution that is watched no more.
func (p *Publisher) Forget(distribution string) { p.packer.Forget(distribution) }

// Build judges a tag of d. tar is the canonical bundle of an available release, and nil for a rejected
// one. An error says nothing about the release.
func (p *Publisher) Build(ctx context.Context, d fleet.Distribution, seen Seen) (r fleet.Release, tar []byte, err error) {
	begin := time.Now()
	if seen.Err != nil {
		r = p.release(d, seen.Tag)
		r.Reasons = []string{seen.Err.Error()}
	} else if r, tar, err = p.pack(d, seen); err != nil {
		return fleet.Release{}, nil, err
	} else if err = p.prove(d, seen, &r); err != nil {
		return fleet.Release{}, nil, err
	} else if r.Phase == fleet.Available {
		judged, err := p.Check(ctx, d, seen.Tag, seen.Snapshot.Files)
		if err != nil {
			return fleet.Release{}, nil, err
		}
		r.Reasons = append(r.Reasons, judged.Reasons...)
		r.Variants, r.Stops, r.Plan = judged.Variants, judged.Stops, judged.Plan
	}
	if len(r.Reasons) > 0 {
		r.Phase, r.Digest, r.Size, tar = fleet.Rejected, "", 0, nil
	}
	r.Commit, r.TagObject = seen.Snapshot.Commit, seen.Snapshot.TagObject
	p.cfg.Log.Debug("release judged", slog.String(logging.Distribution, d.Name), slog.String(logging.Version, seen.Tag),
		slog.String(logging.Phase, string(r.Phase)), slog.Duration(logging.Duration, time.Since(begin)))
	return r, tar, nil
}

func (p *Publisher) release(d fleet.Distribution, tag string) fleet.Release {
	return fleet.Release{Distribution: d.Name, Version: tag, Phase: fleet.Available, Published: p.cfg.Now().UTC()}
}

// pack makes the bundle, where the files allow one.
func (p *Publisher) pack(d fleet.Distribution, seen Seen) (fleet.Release, []byte, error) {
	r := p.release(d, seen.Tag)
	tar, digest, err := p.packer.Pack(d.Name, seen.Snapshot.Files, seen.Snapshot.Proof)
	switch {
	case err != nil:
		r.Phase, r.Reasons = fleet.Rejected, []string{err.Error()}
		return r, nil, nil
	case int64(len(tar)) > p.cfg.MaxBytes:
		r.Phase, r.Reasons = fleet.Rejected, []string{fmt.Sprintf("%s holds %s, more than the %s that a release may have; move what is not deployed out of it",
			shown(d.Path), mebibytes(int64(len(tar))), mebibytes(p.cfg.MaxBytes))}
		return r, nil, nil
	}
	// Every spoke will follow this chain; if it is broken, it was broken on the way here.
	if _, err := seen.Snapshot.Proof.Check(seen.Snapshot.Files); err != nil {
		return r, nil, fmt.Errorf("publish %s of %s: %w", seen.Tag, d.Name, err)
	}
	r.Digest, r.Size = digest, int64(len(tar))
	return r, tar, nil
}

// prove checks the signatures that the distribution asks for, with the policy that a spoke has. A tag that
// some have signed and not enough is no judgement yet: the others push theirs later.
func (p *Publisher) prove(d fleet.Distribution, seen Seen, r *fleet.Release) error {
	if d.Signers.None() || r.Phase != fleet.Available {
		return nil
	}
	policy, err := Policy(d.Signers)
	if err != nil {
		return fmt.Errorf("publish %s of %s: %w", seen.Tag, d.Name, err)
	}
	policy.Distribution = d.Name
	signed, err := provenance.Verify(seen.Snapshot.Proof, seen.Snapshot.Files, seen.Tag, policy, p.cfg.Now())
	var short *provenance.ShortError
	switch {
	case errors.As(err, &short):
		return fmt.Errorf("it has %w so far; push the others as refs/signatures/%s/NAME: %w", short, seen.Tag, err)
	case err != nil:
		r.Reasons = append(r.Reasons, strings.Split(err.Error(), "\n")...)
		return nil
	}
	for _, s := range signed.By {
		r.SignedBy = append(r.SignedBy, s.String())
	}
	return nil
}

// Policy reads signers of tags; an error says what is wrong with the files of keys.
func Policy(s fleet.Signers) (provenance.Policy, error) { return policyIn(signer.Git, s) }

// ChannelPolicy reads signers of statements of what is current.
func ChannelPolicy(s fleet.Signers) (provenance.Policy, error) { return policyIn(signer.Channel, s) }

func policyIn(namespace string, s fleet.Signers) (provenance.Policy, error) {
	var sources []signer.Source
	for _, f := range s.Files {
		sources = append(sources, signer.Source{Name: f.Name, Text: []byte(f.Text)})
	}
	set, err := signer.Read(namespace, sources...)
	if err != nil {
		return provenance.Policy{}, err
	}
	p := provenance.Policy{Signers: set, Threshold: s.Threshold}
	return p, p.Check()
}

// healthReasons: the vendor's health rules are read by every spoke, and none of them can mend them.
func healthReasons(files []provenance.File) (reasons []string) {
	found, err := render.Health(files)
	if err != nil {
		return nil // said with the variants
	}
	for _, h := range found {
		if _, err := rules.Compile([]rules.Rule{rules.Rule(h)}); err != nil {
			reasons = append(reasons, strings.Split(render.SettingsFile+": "+strings.ReplaceAll(err.Error(), "\n", "\n"+render.SettingsFile+": "), "\n")...)
		}
	}
	return reasons
}

// Untagged is what files are judged as that bear no tag yet.
const Untagged = "0.0.0"

// stopReasons: a release that is to run before this one is an older one.
func stopReasons(tag string, stops []string) (reasons []string) {
	if _, err := fleet.ParseVersion(tag); err != nil || tag == Untagged {
		return nil
	}
	for i, s := range stops {
		if fleet.CompareTags(s, tag) >= 0 {
			reasons = append(reasons, fmt.Sprintf("%s: upgrade.stops[%d]: %s is not lower than the release itself, %s; name releases that have to run before it", render.SettingsFile, i, s, tag))
		}
	}
	return reasons
}

// Check judges files as release tag of d would be, whether or not there is a tag or a repository: it
// fills Phase, Reasons, Variants, Stops and Plan. An error says nothing about the files.
func (p *Publisher) Check(ctx context.Context, d fleet.Distribution, tag string, files []provenance.File) (fleet.Release, error) {
	r := p.release(d, tag)
	r.Reasons = tagReasons(d, tag)
	variants, err := render.Variants(files)
	var build *render.BuildError
	switch {
	case errors.As(err, &build):
		r.Reasons = append(r.Reasons, build.Problems...)
	case err != nil:
		return r, fmt.Errorf("publish %s of %s: %w", tag, d.Name, err)
	case len(files) == 0:
		r.Reasons = append(r.Reasons, fmt.Sprintf("%s holds no files at this tag", shown(d.Path)))
	case len(variants) == 0:
		r.Reasons = append(r.Reasons, fmt.Sprintf("%s holds nothing to build: want %s, or %s in a folder of its own for every variant, or a list of folders under variants: in %s",
			shown(d.Path), path.Join(d.Path, "kustomization.yaml"), path.Join(d.Path, "VARIANT", "kustomization.yaml"), path.Join(d.Path, render.SettingsFile)))
	}
	r.Reasons = append(r.Reasons, healthReasons(files)...)
	if course, err := render.CourseOf(files); err == nil { // else said with the variants
		r.Stops, r.Plan = course.Stops, course.Plan
		r.Reasons = append(r.Reasons, stopReasons(tag, r.Stops)...)
	}
	var refused []string
	for _, name := range variants {
		v, err := p.variant(ctx, d, tag, name, files)
		if err != nil {
			return r, fmt.Errorf("publish %s of %s: variant %s: %w", tag, d.Name, name, err)
		}
		if len(v.Reasons) > 0 {
			refused = append(refused, name)
		}
		r.Variants = append(r.Variants, v)
	}
	if len(refused) > 0 {
		r.Reasons = append(r.Reasons, fmt.Sprintf("%d of %d variants refused: %s", len(refused), len(variants), strings.Join(refused, ", ")))
	}
	if len(r.Reasons) > 0 {
		r.Phase = fleet.Rejected
	}
	return r, nil
}

// tagReasons: a release's tag is a semantic version in the distribution's range.
func tagReasons(d fleet.Distribution, tag string) []string {
	v, err := fleet.ParseVersion(tag)
	if err != nil {
		return []string{err.Error()}
	}
	rng, err := fleet.ParseRange(d.Tags)
	if err != nil {
		return []string{fmt.Sprintf("distribution %s: %v", d.Name, err)}
	}
	if !rng.Contains(v) {
		return []string{fmt.Sprintf("tag %s is not in the distribution's range %q", tag, d.Tags)}
	}
	return nil
}

// variant builds one and names all that is against it.
func (p *Publisher) variant(ctx context.Context, d fleet.Distribution, tag, name string, files []provenance.File) (fleet.VariantResult, error) {
	v := fleet.VariantResult{Name: name}
	res, err := p.cfg.Renderer.Render(ctx, render.Source{Name: d.Name, Version: tag, Bundle: files, BundlePath: d.Path,
		URLs: []string{d.URL}, Variant: name})
	var build *render.BuildError
	if errors.As(err, &build) {
		v.Reasons = build.Problems
		return v, nil
	}
	if err != nil {
		return v, err
	}
	v.Objects = res.Objects
	objs, err := manifest.Parse(res.Manifest)
	if err != nil {
		v.Reasons = []string{err.Error()}
		return v, nil
	}
	if len(objs) == 0 {
		v.Reasons = []string{"builds, but to no object at all"}
	}
	for _, problem := range slices.Concat(manifest.Validate(objs), manifest.CheckImages(objs)) {
		v.Reasons = append(v.Reasons, problem.String())
	}
	return v, nil
}

func shown(p string) string {
	if p == "" || p == "." {
		return "the repository's root"
	}
	return p
}

func mebibytes(n int64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }
