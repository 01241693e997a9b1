package world

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Vendor is a distribution repository and the person who commits to it.
type Vendor struct{ Dir string }

// NewVendor makes a repository of the files below from.
func NewVendor(ctx context.Context, dir, from string) (*Vendor, error) {
	if err := os.CopyFS(dir, os.DirFS(from)); err != nil {
		return nil, fmt.Errorf("copying the sample distribution: %w", err)
	}
	v := &Vendor{Dir: dir}
	return v, v.Init(ctx, "Start")
}

// Init makes a repository of the files that are there.
func (v *Vendor) Init(ctx context.Context, message string) error {
	for _, args := range [][]string{{"init", "-q", "-b", "main"}, {"config", "user.name", "Vendor"}, {"config", "user.email", "vendor@example.com"}, {"config", "commit.gpgsign", "false"}, {"config", "tag.gpgsign", "false"}} {
		if err := v.Git(ctx, args...); err != nil {
			return err
		}
	}
	return v.Commit(ctx, message)
}

// CloneVendor takes an existing repository or git bundle.
func CloneVendor(ctx context.Context, dir, from string) (*Vendor, error) {
	r, err := command(ctx, "", nil, "git", "clone", "-q", from, dir)
	if err != nil {
		return nil, err
	}
	if r.Code != 0 {
		return nil, fmt.Errorf("cloning %s: %s", from, r.Err)
	}
	return &Vendor{Dir: dir}, nil
}

// Git runs one git command in the repository.
func (v *Vendor) Git(ctx context.Context, args ...string) error {
	r, err := command(ctx, v.Dir, nil, "git", args...)
	if err != nil {
		return err
	}
	if r.Code != 0 {
		return fmt.Errorf("git %s: %s%s", strings.Join(args, " "), r.Out, r.Err)
	}
	return nil
}

// Replace exchanges old for new in every file below dist whose path contains part, and fails where
// nothing matched.
func (v *Vendor) Replace(part, old, new string) error {
	found := false
	err := filepath.WalkDir(filepath.Join(v.Dir, "dist"), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() || !strings.Contains(path, part) {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil || !strings.Contains(string(b), old) {
			return err
		}
		found = true
		return os.WriteFile(path, []byte(strings.ReplaceAll(string(b), old, new)), 0o644)
	})
	if err == nil && !found {
		err = fmt.Errorf("no file of dist with %q in its path holds %q", part, old)
	}
	return err
}

// Write puts a file into the repository's work tree.
func (v *Vendor) Write(path, content string) error {
	full := filepath.Join(v.Dir, path)
	if err := os.MkdirAll(filepath.Dir(full), 0o755); err != nil {
		return err
	}
	return os.WriteFile(full, []byte(content), 0o644)
}

// Remove takes a file out of the work tree.
func (v *Vendor) Remove(path string) error { return os.Remove(filepath.Join(v.Dir, path)) }

// Commit records the work tree.
func (v *Vendor) Commit(ctx context.Context, message string) error {
	if err := v.Git(ctx, "add", "-A"); err != nil {
		return err
	}
	return v.Git(ctx, "commit", "-q", "--allow-empty", "-m", message)
}

// Release commits the work tree and tags it.
func (v *Vendor) Release(ctx context.Context, tag string) error {
	if err := v.Commit(ctx, "Release "+tag); err != nil {
		return err
	}
	return v.Git(ctx, "tag", "-a", tag, "-m", "Release "+tag)
}
