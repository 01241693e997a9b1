package cli

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func (a *app) validateCommand() *cobra.Command {
	d := fleet.Distribution{Name: "validated"}
	keys := signerFlags{}
	c := &cobra.Command{
		Use:   "validate PATH | URL@TAG",
		Short: "Say what publication would say, without a hub",
		Long: `validate builds every variant and applies every rule that the hub applies to a release, and changes
nothing. PATH is a work tree, as it is now, uncommitted files included; URL@TAG is a tag of a repository, whose signature is
checked with --signers. For a work tree that passes it prints the sum of the content, which a signer may put into the tag's
message: SHA-256 instead of git's SHA-1 then says what was signed.

Exit code 0: it would be available; 1: it would be rejected, with the reasons; 2: it cannot be read.`,
		Example: "  hub validate .\n  hub validate https://git.example.com/vendor/shop.git@1.4.0",
		Args:    args(1, 1, "PATH or URL@TAG"),
		RunE: func(c *cobra.Command, given []string) error {
			signers, err := keys.read()
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			d.Signers = signersOf(signers)
			if !d.Signers.None() {
				if _, err := publish.Policy(d.Signers); err != nil {
					return exitcode.With(exitcode.Usage, err)
				}
			}
			r, sum, err := a.validate(c.Context(), d, given[0])
			if err != nil {
				return err
			}
			fmt.Fprint(a.out, verdict(given[0], r))
			if sum != "" && r.Phase == fleet.Available {
				fmt.Fprint(a.err, trailer(sum))
			}
			if r.Phase != fleet.Available {
				return exitcode.Silent(exitcode.Failed)
			}
			return nil
		},
	}
	c.Flags().StringVar(&d.Path, "path", "dist", "`PATH` of the distribution inside the repository")
	c.Flags().StringVar(&d.Tags, "tags", "", "semver `RANGE` of tags that are releases")
	keys.flags(c)
	return c
}

func (a *app) validate(ctx context.Context, d fleet.Distribution, what string) (r fleet.Release, sum string, err error) {
	ctx, cancel := context.WithTimeout(ctx, max(a.timeout, 2*time.Minute))
	defer cancel()
	log := slog.New(slog.DiscardHandler)
	renderer := render.New(render.Config{Log: log})
	defer renderer.Close()
	publisher := publish.New(publish.Config{Renderer: renderer, Log: log})
	if info, err := os.Stat(what); err == nil && info.IsDir() {
		files, err := workTree(filepath.Join(what, filepath.FromSlash(d.Path)))
		if err != nil {
			return r, "", exitcode.With(exitcode.Usage, err)
		}
		if !d.Signers.None() {
			return r, "", exitcode.With(exitcode.Usage, fmt.Errorf("%s is a work tree, which nobody has signed; with --signers give URL@TAG", what))
		}
		if sum, err = provenance.ContentSHA256(files); err != nil {
			return r, "", exitcode.With(exitcode.Usage, err)
		}
		r, err = publisher.Check(ctx, d, publish.Untagged, files)
		return r, sum, err
	}
	at := strings.LastIndex(what, "@")
	if at <= 0 || strings.ContainsAny(what[at:], "/:") {
		return r, "", exitcode.With(exitcode.Usage, fmt.Errorf("%q is neither a folder nor URL@TAG", what))
	}
	d.URL = absolute(what[:at])
	seen, err := fetch(ctx, d, what[at+1:], log)
	if err != nil {
		return r, "", exitcode.With(exitcode.Usage, err)
	}
	r, _, err = publisher.Build(ctx, d, seen)
	return r, "", err
}

// fetch brings one tag. A tag that cannot be a release is an answer, not an error.
func fetch(ctx context.Context, d fleet.Distribution, tag string, log *slog.Logger) (publish.Seen, error) {
	dir, err := os.MkdirTemp("", "hub-validate-")
	if err != nil {
		return publish.Seen{}, err
	}
	defer os.RemoveAll(dir)
	repo, err := gitrepo.Open(ctx, gitrepo.Config{URL: d.URL, Dir: dir, Log: log})
	if err != nil {
		return publish.Seen{}, err
	}
	defer repo.Close()
	if err := repo.Fetch(ctx, tag); err != nil {
		return publish.Seen{}, err
	}
	snapshot, err := repo.Snapshot(tag, d.Path)
	return publish.Seen{Tag: tag, Snapshot: snapshot, Err: err}, nil
}

// workTree reads the files below dir. What git would not carry as a plain file is refused, as the hub
// refuses it.
func workTree(dir string) ([]provenance.File, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("%w; name the distribution's folder with --path", err)
	}
	defer root.Close()
	var files []provenance.File
	err = fs.WalkDir(root.FS(), ".", func(path string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case e.IsDir() && e.Name() == ".git":
			return fs.SkipDir
		case e.IsDir():
			return nil
		case !e.Type().IsRegular():
			return fmt.Errorf("%s is not a plain file: a release holds neither symbolic links nor devices", path)
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		data, err := fs.ReadFile(root.FS(), path)
		files = append(files, provenance.File{Path: path, Executable: info.Mode()&0o100 != 0, Data: data})
		return err
	})
	if err == nil && len(files) == 0 {
		err = errors.New(dir + " is empty; name the distribution's folder with --path")
	}
	return files, err
}

// verdict is a judgement for a person.
func verdict(what string, r fleet.Release) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s would be %s\n", what, r.Phase)
	for _, reason := range r.Reasons {
		fmt.Fprintf(&b, "  - %s\n", reason)
	}
	for _, who := range r.SignedBy {
		fmt.Fprintf(&b, "  signed by %s\n", who)
	}
	for _, v := range r.Variants {
		if len(v.Reasons) == 0 {
			fmt.Fprintf(&b, "  %s: builds, %s\n", v.Name, plural(v.Objects, "object", "objects"))
			continue
		}
		fmt.Fprintf(&b, "  %s:\n", v.Name)
		for _, reason := range v.Reasons {
			fmt.Fprintf(&b, "    - %s\n", reason)
		}
	}
	return b.String()
}
