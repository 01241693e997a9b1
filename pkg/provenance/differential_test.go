package provenance

import (
	"bytes"
	"compress/zlib"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// kinds of the objects that are parsed, and their numbers in a pack.
func kinds() []string { return []string{"commit", "tree", "tag"} }

func packType(kind string) int { return map[string]int{"commit": 1, "tree": 2, "tag": 4}[kind] }

type rawObject struct {
	kind string
	data []byte
}

// reading is what our parser makes of an object, in the words in which git is asked; false: refused.
func reading(o rawObject) (string, bool) {
	switch o.kind {
	case "commit":
		c, err := ParseCommit(o.data)
		return fmt.Sprintf("%s|%s|%d", c.Tree, strings.Join(c.Parents, " "), c.Time.Unix()), err == nil
	case "tree":
		entries, err := ParseTree(o.data)
		var b strings.Builder
		for _, e := range entries {
			fmt.Fprintf(&b, "%s %x %q\n", e.Mode, e.ID, e.Name)
		}
		return b.String(), err == nil
	}
	t, err := ParseTag(o.data)
	if err != nil {
		return "", false
	}
	_, block, err := t.Signature()
	return fmt.Sprintf("%s|%s|%s|%d|%s", t.Object, t.Kind, t.Name, t.Time.Unix(), block), err == nil
}

// disagreements are the objects that we accept and that git refuses or reads otherwise.
func disagreements(t testing.TB, objects []rawObject) (accepted int, wrong []string) {
	t.Helper()
	ours := map[string]string{} // by id
	kind := map[string]string{}
	var taken []rawObject
	for _, o := range objects {
		r, ok := reading(o)
		if !ok {
			continue
		}
		sum := sha1.Sum(append(fmt.Appendf(nil, "%s %d\x00", o.kind, len(o.data)), o.data...))
		if id := hex.EncodeToString(sum[:]); kind[id] == "" {
			ours[id], kind[id] = r, o.kind
			taken = append(taken, o)
		}
	}
	if len(taken) == 0 {
		return 0, nil
	}
	dir := packed(t, taken)
	theirs := map[string]string{}
	readCommits(t, dir, kind, theirs)
	readTrees(t, dir, kind, theirs)
	readTags(t, dir, kind, theirs)
	refused := fsck(t, dir)
	for id, want := range ours {
		if got := theirs[id]; got != want || refused[id] != "" {
			wrong = append(wrong, fmt.Sprintf("%s %s: we read %q, git %q %s", kind[id], id, want, got, refused[id]))
		}
	}
	return len(taken), wrong
}

// packed is a repository that holds the objects.
func packed(t testing.TB, objects []rawObject) string {
	t.Helper()
	dir := t.TempDir()
	git(t, dir, "init", "-q", "--bare")
	pipe(t, dir, packOf(t, objects), "index-pack", "--stdin")
	return dir
}

func ids(kind map[string]string, want string) (out []string) {
	for id, k := range kind {
		if k == want {
			out = append(out, id)
		}
	}
	return out
}

func readCommits(t testing.TB, dir string, kind, into map[string]string) {
	list := ids(kind, "commit")
	if len(list) == 0 {
		return
	}
	// Parents are asked for as they stand, not as a walk finds them: none of them exists.
	out := pipe(t, dir, []byte(strings.Join(list, "\n")+"\n"), "log", "--stdin", "--no-walk=unsorted", "-z", "--format=%H%x01%T|%P|%ct")
	for record := range strings.SplitSeq(string(out), "\x00") {
		if id, rest, ok := strings.Cut(record, "\x01"); ok {
			into[id] = rest
		}
	}
}

const emptyTree = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"

func readTrees(t testing.TB, dir string, kind, into map[string]string) {
	var in strings.Builder
	list := ids(kind, "tree")
	for _, id := range list {
		fmt.Fprintf(&in, "%s %s\n", emptyTree, id)
		into[id] = ""
	}
	if len(list) == 0 {
		return
	}
	out := pipe(t, dir, []byte(in.String()), "diff-tree", "--stdin", "-z", "--no-renames")
	id := ""
	for len(out) > 0 {
		if out[0] != ':' { // the two trees, ended by a line's end
			head, rest, ok := bytes.Cut(out, []byte("\n"))
			if !ok || len(head) != 81 {
				t.Fatalf("git diff-tree says %q", out)
			}
			id, out = string(head[41:]), rest
			continue
		}
		meta, rest, _ := bytes.Cut(out, []byte{0})
		name, rest, _ := bytes.Cut(rest, []byte{0})
		f := strings.Fields(string(meta))
		into[id] += fmt.Sprintf("%s %s %q\n", strings.TrimPrefix(f[1], "0"), f[3], name)
		out = rest
	}
}

func readTags(t testing.TB, dir string, kind, into map[string]string) {
	var refs strings.Builder
	list := ids(kind, "tag")
	for i, id := range list {
		fmt.Fprintf(&refs, "%s refs/tags/%09d\n", id, i)
	}
	if len(list) == 0 {
		return
	}
	if err := os.WriteFile(filepath.Join(dir, "packed-refs"), []byte(refs.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	format := "%(objectname)%01%(object)|%(type)|%(tag)|%(taggerdate:unix)|%(contents:signature)%00"
	for record := range strings.SplitSeq(string(pipe(t, dir, nil, "for-each-ref", "--format="+format)), "\x00") {
		if id, rest, ok := strings.Cut(strings.TrimPrefix(record, "\n"), "\x01"); ok {
			into[id] = rest
		}
	}
	if err := os.Remove(filepath.Join(dir, "packed-refs")); err != nil {
		t.Fatal(err)
	}
}

// fsck is what git finds wrong with the objects themselves. It says as much of objects that are missing,
// and of what a file called .gitmodules would hold.
func fsck(t testing.TB, dir string) map[string]string {
	t.Helper()
	cmd := exec.Command("git", "fsck", "--strict", "--no-progress", "--no-dangling", "--full")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	_ = cmd.Run() // fails for what is missing
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^(?:error|(?:error|warning) in \w+)[: ]+([0-9a-f]{40}): (\w+).*$`).FindAllStringSubmatch(stderr.String(), -1) {
		if !strings.HasPrefix(m[2], "gitmodules") && m[2] != "broken" {
			out[m[1]] = m[0]
		}
	}
	return out
}

func pipe(t testing.TB, dir string, in []byte, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(in)
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %v: %v\n%s", args, err, &stderr)
	}
	return out
}

// packOf writes a pack: gitformat-pack(5).
func packOf(t testing.TB, objects []rawObject) []byte {
	var b bytes.Buffer
	b.WriteString("PACK")
	if err := binary.Write(&b, binary.BigEndian, []uint32{2, uint32(len(objects))}); err != nil {
		t.Fatal(err)
	}
	z := zlib.NewWriter(&b)
	for _, o := range objects {
		size := len(o.data)
		c := byte(packType(o.kind)<<4 | size&15)
		for size >>= 4; size > 0; size >>= 7 {
			b.WriteByte(c | 0x80)
			c = byte(size & 0x7f)
		}
		b.WriteByte(c)
		z.Reset(&b)
		if _, err := z.Write(o.data); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
	}
	sum := sha1.Sum(b.Bytes())
	return append(b.Bytes(), sum[:]...)
}

// seeds are objects as git writes them, and some that it nearly would.
func seeds() []rawObject {
	id, id2 := strings.Repeat("12", 20), strings.Repeat("ab", 20)
	raw := strings.Repeat("i", 20)
	ident := "v <v@example.com> 1790000000 +0200\n"
	commit := "tree " + id + "\nparent " + id2 + "\nauthor " + ident + "committer " + ident
	tag := "object " + id + "\ntype commit\ntag 1.0.0\ntagger " + ident
	ssh := beginSSH + "\nU1NIU0lH\n" + endSSH + "\n"
	texts := map[string][]string{
		"commit": {commit + "\nfirst\n", strings.Replace(commit, "parent "+id2+"\n", "", 1) + "\n\n",
			commit + "gpgsig -----BEGIN PGP SIGNATURE-----\n \n AAAA\n -----END PGP SIGNATURE-----\n\nsigned\n",
			commit + "encoding ISO-8859-1\nmergetag object " + id + "\n type commit\n tag x\n tagger " + ident + " \n x\n\nmerge\n",
			commit + "tree " + id2 + "\n\ntwice\n"},
		"tag": {tag + "\none\n", tag + "\none\n" + ssh, tag + "\none\n" + beginPGP + "\n\nAAAA\n" + endPGP + "\n",
			tag + "\none\n" + ssh + ssh, tag + "gpgsig x\n\none\n", tag + "\n"},
		"tree": {"100644 a\x00" + raw, "100644 a-b\x00" + raw + "40000 a\x00" + raw + "100755 a0\x00" + raw, "120000 l\x00" + raw + "160000 m\x00" + raw,
			"40000 .git\x00" + raw, "100644 GIT~1\x00" + raw, "100644 .g\u200cit\x00" + raw, "100664 a\x00" + raw, "040000 d\x00" + raw, "100644 .gitmodules\x00" + raw, ""},
	}
	var out []rawObject
	for _, kind := range kinds() {
		for _, s := range texts[kind] {
			out = append(out, rawObject{kind, []byte(s)})
		}
	}
	return out
}

// apart gives a seed ids of its own: to git an id that one object calls a tree and another one a commit is
// a fault of the second, whatever it holds.
func apart(seed []byte, n int) []byte {
	for i, id := range []string{"12", "ab"} {
		sum := sha1.Sum(fmt.Append(nil, n, i)) // far apart, so that no mutation makes one of another
		seed = bytes.ReplaceAll(seed, []byte(strings.Repeat(id, 20)), hex.AppendEncode(nil, sum[:]))
	}
	return seed
}

// mutate changes a seed in the places where readers differ: lines, blanks, ends, modes and names.
func mutate(r *rand.Rand, seed []byte) []byte {
	pieces := []string{"\n", "\n\n", "\r\n", "\r", "\x00", " ", "\t", "<", ">", "> ", "0", "9", "-", "+", ".", "..", "/", ".git", ".GIT", ".lock", "\\", ":", "~1",
		"tree ", "parent ", "author ", "committer ", "object ", "type ", "tag ", "tagger ", "encoding ", "gpgsig ", "commit", "blob", "refs/tags/",
		"100644 ", "100755 ", "40000 ", "040000 ", "100664 ", "120000 ", "160000 ", "\u200b", "\u200c", "\ufeff", "\xff", "é",
		beginSSH + "\n", beginPGP + "\n", endSSH + "\n", "-----BEGIN SIGNED MESSAGE-----\n", "99999999999999999999", "@{", "HEAD", "a", "b"}
	out := bytes.Clone(seed)
	for range 1 + r.IntN(3) {
		if len(out) == 0 {
			out = []byte(pieces[r.IntN(len(pieces))])
			continue
		}
		at, end := r.IntN(len(out)), 0
		end = min(len(out), at+1+r.IntN(4))
		switch r.IntN(6) {
		case 0:
			out[at] = byte(r.IntN(256))
		case 1:
			out = append(out[:at:at], out[end:]...)
		case 2, 3:
			out = append(append(out[:at:at], pieces[r.IntN(len(pieces))]...), out[at:]...)
		case 4:
			out = append(append(out[:at:at], pieces[r.IntN(len(pieces))]...), out[end:]...)
		default: // a line or a piece of one again, somewhere else
			from := r.IntN(len(out))
			to := min(len(out), from+1+r.IntN(60))
			out = append(append(out[:at:at], bytes.Clone(out[from:to])...), out[at:]...)
		}
	}
	return out
}

// Law 1: an object that we accept means to git what it means to us. Objects are made from seeds by chance;
// the seed of the chance is fixed, so that a run can be repeated.
func TestLaw1ObjectsAreWhatGitReads(t *testing.T) {
	all, batch := 200_000, 20_000
	switch {
	case os.Getenv("WHEELWRIGHT_FIGURES") != "":
		all = 2_000_000
	case testing.Short():
		all = 4_000
	}
	r := rand.New(rand.NewPCG(6, 1))
	from := seeds()
	accepted, disagreed, objects := 0, 0, 0
	for objects < all {
		var made []rawObject
		for n := 0; n < min(batch, all-objects); n++ {
			s := from[n%len(from)]
			s.data = apart(s.data, n)
			if n >= len(from) {
				s.data = mutate(r, s.data)
			}
			made = append(made, s)
		}
		n, wrong := disagreements(t, made)
		objects, accepted, disagreed = objects+len(made), accepted+n, disagreed+len(wrong)
		for _, w := range wrong[:min(len(wrong), 10)] {
			t.Error(w)
		}
		if disagreed > 100 {
			break
		}
	}
	fmt.Printf("FIGURE parser.objects %d objects %d of them accepted, each asked of git\n", objects, accepted)
	fmt.Printf("FIGURE parser.disagreements %d objects accepted that git reads otherwise\n", disagreed)
	if accepted < objects/100 {
		t.Errorf("only %d of %d objects are accepted: nothing is compared", accepted, objects)
	}
}

// What the test above goes by sees what is wrong with an object.
func TestGitRefusesWhatWeRefuse(t *testing.T) {
	id, raw := strings.Repeat("12", 20), strings.Repeat("i", 20)
	ident := "v <v@example.com> 1790000000 +0200\n"
	for name, o := range map[string]rawObject{
		"a name twice":       {"tree", []byte("100644 a\x00" + raw + "100644 a\x00" + raw)},
		"out of order":       {"tree", []byte("100644 b\x00" + raw + "100644 a\x00" + raw)},
		"a git folder":       {"tree", []byte("40000 .git\x00" + raw)},
		"NTFS's git folder":  {"tree", []byte("40000 GIT~1\x00" + raw)},
		"HFS's git folder":   {"tree", []byte("40000 .g\u200cit\x00" + raw)},
		"a long mode":        {"tree", []byte("040000 d\x00" + raw)},
		"two authors":        {"commit", []byte("tree " + id + "\nauthor " + ident + "author " + ident + "committer " + ident + "\nx\n")},
		"no mail":            {"commit", []byte("tree " + id + "\nauthor v 1790000000 +0200\ncommitter " + ident + "\nx\n")},
		"a year too far":     {"commit", []byte("tree " + id + "\nauthor " + ident + "committer v <v@example.com> 99999999999999999999 +0000\n\nx\n")},
		"no type":            {"tag", []byte("object " + id + "\ntag 1.0.0\ntagger " + ident + "\none\n")},
		"no tagger":          {"tag", []byte("object " + id + "\ntype commit\ntag 1.0.0\n\none\n")},
		"a name that is bad": {"tag", []byte("object " + id + "\ntype commit\ntag 1..0\ntagger " + ident + "\none\n")},
	} {
		if _, ok := reading(o); ok {
			t.Errorf("%s: we accept it", name)
		}
		if len(fsck(t, packed(t, []rawObject{o}))) == 0 {
			t.Errorf("%s: git fsck finds nothing wrong", name)
		}
	}
}

// FuzzObjects compares with git as the test above does; `go test` replays the corpus alone.
func FuzzObjects(f *testing.F) {
	for _, s := range seeds() {
		for i, k := range kinds() {
			if k == s.kind {
				f.Add(uint8(i), s.data)
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, data []byte) {
		o := rawObject{kinds()[int(kind)%len(kinds())], data}
		if _, wrong := disagreements(t, []rawObject{o}); len(wrong) > 0 {
			t.Error(wrong[0])
		}
	})
}
