package cli

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/wheelwright-dev/wheelwright/hub/internal/publish"
	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
	"github.com/wheelwright-dev/wheelwright/pkg/provenance/channel"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
)

// slow is how long a statement may take from one spoke to the other before it was withheld.
const slow = 15 * time.Minute

func (a *app) auditCompare() *cobra.Command {
	keys := signerFlags{}
	c := &cobra.Command{
		Use:   "compare FILE FILE",
		Short: "Say whether a hub has told two spokes the same",
		Long: `compare reads what ` + "`spoke audit export`" + ` wrote on two clusters, and asks no hub. It finds

  two statements of the vendor's key that one chain cannot hold: the proof is in their signatures, checked with --signers;
  one version with two contents: both digests are named, and the bundles that have them are the proof;
  a statement that one spoke had for more than 15 minutes, while the other was in touch with the hub and was not told it.

The last two are as good as the word of those who exported the files.

Exit code 0: both were told the same; 1: they were not; 2: a file cannot be read, or a statement in it is not the vendor's.`,
		Example: "  hub audit compare eu-1.json us-1.json --signers vendor.allowed_signers",
		Args:    args(2, 2, "two FILEs"),
		RunE: func(_ *cobra.Command, given []string) error {
			policy, err := keys.policy()
			if err != nil {
				return exitcode.With(exitcode.Usage, err)
			}
			var both [2]story
			for n, file := range given {
				if both[n], err = readStory(file, policy, a.now()); err != nil {
					return exitcode.With(exitcode.Usage, err)
				}
			}
			found := unlike(both[0], both[1])
			for _, line := range found {
				fmt.Fprintln(a.out, line)
			}
			if len(found) > 0 {
				return exitcode.Silent(exitcode.Failed)
			}
			fmt.Fprintf(a.out, "%s and %s were told the same\n", both[0].cluster, both[1].cluster)
			if policy == nil {
				fmt.Fprintln(a.err, "the statements' signatures were not checked: name the vendor's keys with --signers FILE")
			}
			return nil
		},
	}
	keys.flags(c)
	return c
}

// policy is for statements; nil where no keys are named.
func (f *signerFlags) policy() (*provenance.Policy, error) {
	m, err := f.read()
	if err != nil || m == nil {
		return nil, err
	}
	p, err := publish.ChannelPolicy(signersOf(m))
	return &p, err
}

// story is what one spoke was told.
type story struct {
	cluster string
	heard   time.Time // from the hub, last
	told    map[string]channel.Log
	first   map[string]map[string]string // by distribution and version
}

func readStory(file string, policy *provenance.Policy, now time.Time) (story, error) {
	s := story{told: map[string]channel.Log{}, first: map[string]map[string]string{}}
	text, err := os.ReadFile(file)
	if err != nil {
		return s, err
	}
	e := &localv1.AuditExport{}
	if err := protojson.Unmarshal(text, e); err != nil {
		return s, fmt.Errorf("%s: %w; want what `spoke audit export` writes", file, err)
	}
	s.cluster, s.heard = e.GetCluster(), wire.FromTime(e.GetLastContact())
	for _, d := range e.GetDistributions() {
		name := d.GetDistribution()
		for _, t := range d.GetTold() {
			one, err := channel.Parse(t.GetStatement())
			if err == nil && policy != nil {
				_, err = one.Verify(name, *policy, now)
			}
			if err != nil {
				return s, fmt.Errorf("%s: %w", file, err)
			}
			s.told[name], _ = s.told[name].Add(one, wire.FromTime(t.GetAt()))
		}
		s.first[name] = map[string]string{}
		for _, f := range d.GetFirst() {
			s.first[name][f.GetVersion()] = f.GetDigest()
		}
	}
	return s, nil
}

// unlike is what one hub cannot have told both in honesty, one line each.
func unlike(a, b story) (all []string) {
	for _, name := range slices.Sorted(maps.Keys(a.first)) {
		if _, both := b.first[name]; !both {
			continue
		}
		for _, f := range channel.Forks(a.told[name], b.told[name]) {
			all = append(all, fmt.Sprintf("%s: FORK: %s: %s and %s", name, f, f.A.Digest(), f.B.Digest()))
		}
		for _, v := range slices.SortedFunc(maps.Keys(a.first[name]), fleet.CompareTags) {
			if x, y := a.first[name][v], b.first[name][v]; y != "" && x != y {
				all = append(all, fmt.Sprintf("%s: CONTENT: %s is %s on %s and %s on %s", name, v, x, a.cluster, y, b.cluster))
			}
		}
		all = append(all, withheld(name, a, b)...)
		all = append(all, withheld(name, b, a)...)
	}
	return all
}

// withheld are statements that one had, and the other was not told in good time.
func withheld(name string, has, lacks story) (all []string) {
	last, _ := lacks.told[name].Last()
	for _, s := range has.told[name] {
		if s.Sequence > last.Sequence && lacks.heard.Sub(s.At) > slow {
			all = append(all, fmt.Sprintf("%s: WITHHELD: %s had statement %d (%s is the latest) at %s; %s heard from the hub at %s and was told no more than %s",
				name, has.cluster, s.Sequence, strings.TrimSpace(s.Latest), fleet.Moment(s.At), lacks.cluster, fleet.Moment(lacks.heard), number(last.Sequence)))
		}
	}
	return all
}

func number(n uint64) string {
	if n == 0 {
		return "none"
	}
	return fmt.Sprintf("statement %d", n)
}
