package integration_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"
)

const modulePath = "github.com/wheelwright-dev/wheelwright/"

// floors is the whole house, top down. Imports go strictly down: a package does not know its
// neighbours on the same floor, so that each can be read, tested and replaced alone.
var floors = []struct {
	number   int
	name     string
	packages []string // "/..." takes what is below too
}{
	{1, "tools", []string{"plugins/canary/internal/...", "plugins/internal/..."}}, // before the doors, which take the rest of plugins
	{2, "adapters", []string{"plugins/conformance/internal/..."}},
	{6, "doors", []string{"hub/cmd/hub", "spoke/cmd/spoke", "plugins/...", "deploy/..."}},
	{5, "surface", []string{"hub/internal/cli", "spoke/internal/cli", "integration/..."}},
	{4, "assembly", []string{"hub", "spoke"}},
	{3, "behaviour", []string{"hub/internal/conductor", "hub/internal/herald", "hub/internal/server", "hub/internal/relay", "hub/internal/api/enroll", "hub/internal/api/relay", "hub/internal/api/sync",
		"hub/internal/api/fleet", "spoke/internal/agent", "spoke/internal/local", "spoke/internal/move"}},
	{2, "adapters", []string{"hub/internal/store", "hub/internal/blob", "hub/internal/depot", "hub/internal/tagwatch", "hub/internal/publish",
		"hub/internal/identity", "hub/internal/oidc", "hub/internal/presence", "hub/internal/presence/presencetest", "hub/internal/clientcontext", "hub/internal/config",
		"spoke/internal/journal", "spoke/internal/hubclient", "spoke/internal/overlay", "spoke/internal/apply", "spoke/internal/config",
		"pkg/pluginhost", "pkg/plugintest"}},
	{1, "tools", []string{"pkg/bundle", "pkg/provenance", "pkg/provenance/signer", "pkg/provenance/channel", "pkg/gitrepo", "pkg/render", "pkg/manifest", "pkg/wire", "pkg/transport",
		"pkg/logging", "pkg/redact", "pkg/sops", "pkg/buildinfo", "pkg/table", "pkg/printer", "pkg/exitcode", "pkg/token", "pkg/rules", "pkg/strictyaml", "pkg/strictlines", "pkg/wholefile", "pkg/plan", "pkg/probe", "pkg/pluginwire", "pkg/pluginsdk", "pkg/pluginhost/supervise", "pkg/pluginlist", "pkg/order", "pkg/rehome", "pkg/sealed", "pkg/relayed", "hub/internal/caller", "hub/internal/ending", "hub/internal/access", "hub/internal/rollout", "hub/internal/backup",
		"spoke/internal/delivery", "spoke/internal/terms", "spoke/internal/envelope", "spoke/internal/verify", "spoke/internal/fields", "spoke/internal/reversal", "spoke/internal/footprint",
		"plugins/canary/internal/measure",
		"plugins/notify/internal/message", "plugins/notify/internal/courier"}},
	{0, "nouns", []string{"pkg/fleet", "proto/..."}},
}

// sideways lists the imports within one floor that are meant, importer first.
var sideways = map[string][]string{
	"pkg/bundle":                         {"pkg/provenance"},
	"pkg/gitrepo":                        {"pkg/provenance", "pkg/logging"},
	"pkg/provenance":                     {"pkg/provenance/signer"},
	"pkg/provenance/channel":             {"pkg/provenance", "pkg/provenance/signer"},
	"pkg/render":                         {"pkg/provenance", "pkg/bundle", "pkg/manifest", "pkg/plan", "pkg/probe"},
	"hub/internal/presence/presencetest": {"hub/internal/presence"},
	"hub/internal/rollout":               {"pkg/plan", "pkg/strictyaml"},
	"hub/internal/access":                {"hub/internal/caller"},
	"pkg/plan":                           {"pkg/strictyaml"},
	"pkg/printer":                        {"pkg/table", "pkg/exitcode"},
	"spoke/internal/verify":              {"pkg/bundle", "pkg/order", "pkg/provenance", "pkg/provenance/channel", "pkg/provenance/signer", "pkg/rehome"},
	"pkg/order":                          {"pkg/strictlines"},
	"pkg/relayed":                        {"pkg/sealed"},
	"pkg/rehome":                         {"pkg/order", "pkg/strictlines", "pkg/token"},
	"spoke/internal/envelope":            {"spoke/internal/terms", "pkg/rules"},
	"plugins/canary/": {"plugins/canary/internal/strategy", "plugins/canary/internal/document", "plugins/canary/internal/route",
		"plugins/canary/internal/course", "plugins/internal/kube"},
	"plugins/internal/": {"plugins/internal/excerpt"},
	"pkg/pluginsdk":     {"pkg/pluginwire"},
	"pkg/pluginlist":    {"pkg/pluginwire", "pkg/strictyaml"},
	"proto/":            {"proto/"},
	"integration/":      {"integration/"},
}

// doors gives each heavy library to the packages that hide it from the rest. The first entry that
// matches an import decides.
var doors = []struct {
	library string // an import path, and all below it
	allowed []string
	reason  string
}{
	{"github.com/go-git/go-git", []string{"pkg/gitrepo"},
		"its way of opening and fetching decides whether a tag takes milliseconds or minutes; that is known in one place"},
	{"go.etcd.io/bbolt", []string{"hub/internal/store", "spoke/internal/journal"},
		"transactions and record formats stay behind the two stores, so that nobody nests a transaction or reads a record of another schema"},
	{"sigs.k8s.io/kustomize", []string{"pkg/render"},
		"with default options it runs commands and opens sockets; it may only run inside the sandbox"},
	{"github.com/fluxcd/cli-utils", []string{"spoke/internal/apply"}, "what healthy means is decided once"},
	{"k8s.io/client-go/kubernetes/scheme", []string{"pkg/manifest"},
		"it brings every type of Kubernetes into a binary; what is a valid object is decided once"},
	{"k8s.io/api", []string{"pkg/manifest", "spoke/internal/envelope"}, "objects are unstructured everywhere else, so that unknown kinds work as known ones do; what a pod may do is judged by its own type"},
	{"k8s.io/pod-security-admission", []string{"spoke/internal/envelope"}, "which pods a provider admits is decided once"},
	{"k8s.io/apimachinery", []string{"pkg/manifest", "pkg/render", "spoke/internal/apply", "spoke/internal/agent", "spoke/internal/reversal", "spoke/internal/fields", "spoke/internal/envelope"},
		"the hub and the wire know bytes and digests, not Kubernetes"},
	{"k8s.io/client-go", []string{"spoke/internal/apply"}, "every request to a cluster passes where it is counted, labelled and dry-run first"},
	{"github.com/google/cel-go", []string{"pkg/rules"}, "what a rule may see and how long it may take is decided once"},
	{"github.com/spf13/cobra", []string{"hub/internal/cli", "spoke/internal/cli"}, "flags are a matter of the command line; behaviour takes a Config"},
	{"github.com/klauspost/compress/flate", []string{"pkg/gitrepo"}, "it reads what git wrote, and nothing is written with it"},
	{"github.com/klauspost/compress", []string{"pkg/bundle"}, "compression is not part of a bundle's identity and must not leak into it"},
	{"github.com/hashicorp/go-plugin", []string{"pkg/pluginsdk"},
		"it serves plugins in Go; how one is started, bounded and ended is the host's, which speaks its protocol through pkg/pluginwire"},
	{"filippo.io/age", []string{"pkg/sops"}, "who can open a file, and what is sealed for whom, is decided once"},
	{"k8s.io/klog", []string{"spoke/internal/apply"}, "its logger is the whole process's; it goes where every other line goes"},
	{"github.com/ProtonMail/go-crypto", []string{"pkg/provenance/signer"}, "what is too weak to trust is decided once"},
	{"github.com/hiddeco/sshsig", []string{"pkg/provenance/signer"}, "a signature counts in the namespace that it is asked for in, and no other"},
	{"github.com/coreos/go-oidc", []string{"hub/internal/oidc"}, "what a token has to say, and how it is proven, is decided once"},
	{"github.com/go-jose/go-jose", []string{"hub/internal/oidc"}, "which algorithms are taken is decided once"},
	{"github.com/pjbgf/sha1cd", []string{"pkg/provenance"}, "every object id is computed where collisions are looked for"},
	{"github.com/landlock-lsm/go-landlock", []string{"pkg/render"}, "it restricts the whole process, and only the render child wants that"},
	{"github.com/google/go-containerregistry", []string{"deploy/..."}, "images are packaging"},
	{"google.golang.org/grpc/credentials", []string{"pkg/transport", "hub/internal/server", "spoke/internal/local", "pkg/pluginwire"},
		"one place decides who is trusted on the wire; beside it only the server, which reads who called, the spoke's own socket, and plugin processes"},
	{"google.golang.org/grpc/codes", []string{"hub/internal/api/...", "hub/internal/server", "hub/internal/relay", "hub/internal/cli", "spoke/internal/hubclient", "spoke/internal/local",
		"pkg/pluginsdk", "pkg/plugintest", "pkg/pluginhost", "proto/..."},
		"errors become codes at the API's edge, once; below it they are Go errors"},
}

// pkg is what the rules need to know of one package.
type pkg struct {
	dir       string // slash-separated, from the root
	name      string
	imports   map[string]string // import path -> a file that has it; tests left out
	docs      []string          // files with a package comment
	generated bool              // every file is
}

// violations applies every rule and returns what is broken, with the reason.
func violations(tree fs.FS) ([]string, error) {
	packages, err := parse(tree)
	if err != nil {
		return nil, err
	}
	var out []string
	for _, p := range packages {
		out = append(out, p.docProblems()...)
		number, floor := floorOf(p.dir)
		if floor == "" {
			out = append(out, fmt.Sprintf("%s is on no floor: say in integration/architecture_test.go which one it belongs to", p.dir))
			continue
		}
		for _, imported := range slices.Sorted(maps.Keys(p.imports)) {
			at := p.imports[imported]
			if inside, ok := strings.CutPrefix(imported, modulePath); ok {
				out = append(out, p.floorProblems(at, inside, number, floor)...)
			} else if floor != "surface" || !strings.HasPrefix(p.dir, "integration/") {
				out = append(out, p.doorProblems(at, imported)...)
			}
		}
	}
	return out, nil
}

func (p pkg) docProblems() []string {
	if p.generated {
		return nil
	}
	want := path.Join(p.dir, p.name+".go")
	switch {
	case p.name == "main" && len(p.docs) == 1, len(p.docs) == 1 && p.docs[0] == want:
		return nil
	case len(p.docs) == 1:
		return []string{fmt.Sprintf("%s has the doc of package %s, which belongs in %s: a reader looks in the file named after the package first", p.docs[0], p.name, want)}
	case len(p.docs) == 0:
		return []string{fmt.Sprintf("%s has no package doc in %s: say what the package is for and what it does not do", p.dir, want)}
	}
	return []string{fmt.Sprintf("%s has %d package docs (%s): one says it, in %s", p.dir, len(p.docs), strings.Join(p.docs, ", "), want)}
}

func (p pkg) floorProblems(at, imported string, number int, floor string) []string {
	below, name := floorOf(imported)
	switch {
	case name == "":
		return nil // said where that package itself is looked at
	case strings.HasPrefix(p.dir+"/", "hub/") && strings.HasPrefix(imported+"/", "spoke/"),
		strings.HasPrefix(p.dir+"/", "spoke/") && strings.HasPrefix(imported+"/", "hub/"):
		return []string{fmt.Sprintf("%s imports %s: hub and spoke belong to two companies and meet in pkg and proto only", at, imported)}
	case below < number, below == number && allowedSideways(p.dir, imported):
		return nil
	case below == number:
		return []string{fmt.Sprintf("%s imports %s, both on floor %d (%s): neighbours do not know each other, so that each can be read and replaced alone; "+
			"declare a small interface where it is used, or move what both need one floor down", at, imported, number, floor)}
	}
	return []string{fmt.Sprintf("%s (floor %d, %s) imports %s (floor %d, %s): imports go strictly down, so that a floor can be understood without those above it",
		at, number, floor, imported, below, name)}
}

func (p pkg) doorProblems(at, imported string) []string {
	for _, door := range doors {
		if !within(imported, door.library) {
			continue
		}
		if slices.ContainsFunc(door.allowed, func(a string) bool { return matches(p.dir, a) }) {
			return nil
		}
		return []string{fmt.Sprintf("%s imports %s, whose door is %s: %s", at, imported, strings.Join(door.allowed, ", "), door.reason)}
	}
	return nil
}

// floorOf takes the floor that names dir, else the first that has it below one of its roots.
func floorOf(dir string) (int, string) {
	for _, f := range floors {
		if slices.Contains(f.packages, dir) {
			return f.number, f.name
		}
	}
	for _, f := range floors {
		if slices.ContainsFunc(f.packages, func(pattern string) bool { return matches(dir, pattern) }) {
			return f.number, f.name
		}
	}
	return 0, ""
}

func matches(dir, pattern string) bool {
	if root, ok := strings.CutSuffix(pattern, "/..."); ok {
		return within(dir, root)
	}
	return dir == pattern
}

// within tells whether p is root or below it; major version suffixes count as below.
func within(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

func allowedSideways(from, to string) bool {
	for importer, imported := range sideways {
		if (from == importer || strings.HasSuffix(importer, "/") && strings.HasPrefix(from, importer)) &&
			slices.ContainsFunc(imported, func(i string) bool { return to == i || strings.HasSuffix(i, "/") && strings.HasPrefix(to, i) }) {
			return true
		}
	}
	return false
}

// parse reads the packages of one module: nested modules and packages of tests alone are left out.
func parse(tree fs.FS) ([]pkg, error) {
	found := map[string]*pkg{}
	err := fs.WalkDir(tree, ".", func(file string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if entry.IsDir() {
			_, nested := fs.Stat(tree, path.Join(file, "go.mod"))
			if file != "." && (nested == nil || strings.HasPrefix(entry.Name(), ".") || entry.Name() == "testdata" || entry.Name() == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(file, ".go") || strings.HasSuffix(file, "_test.go") {
			return nil
		}
		return parseFile(tree, file, found)
	})
	var out []pkg
	for _, dir := range slices.Sorted(maps.Keys(found)) {
		out = append(out, *found[dir])
	}
	return out, err
}

func parseFile(tree fs.FS, file string, found map[string]*pkg) error {
	text, err := fs.ReadFile(tree, file)
	if err != nil {
		return err
	}
	parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.ImportsOnly|parser.ParseComments)
	if err != nil {
		return err
	}
	dir := path.Dir(file)
	if found[dir] == nil {
		found[dir] = &pkg{dir: dir, name: parsed.Name.Name, imports: map[string]string{}, generated: true}
	}
	p := found[dir]
	if parsed.Doc != nil && !ast.IsGenerated(parsed) {
		p.docs = append(p.docs, file)
	}
	p.generated = p.generated && ast.IsGenerated(parsed)
	for _, i := range parsed.Imports {
		imported, err := strconv.Unquote(i.Path.Value)
		if err != nil {
			return err
		}
		if _, seen := p.imports[imported]; !seen {
			p.imports[imported] = file
		}
	}
	return nil
}

func TestArchitecture(t *testing.T) {
	broken, err := violations(os.DirFS(".."))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range broken {
		t.Error(b)
	}
}

// A small house with one thing wrong in each room: the rules are worth nothing if they see nothing.
func TestArchitectureSeesViolations(t *testing.T) {
	source := func(name string, imports ...string) string {
		text := "// Package " + name + " is here for this test.\npackage " + name + "\n"
		for _, i := range imports {
			text += fmt.Sprintf("import _ %q\n", i)
		}
		return text
	}
	for _, test := range []struct{ name, file, text, want string }{
		{"right", "hub/internal/store/store.go", source("store", "go.etcd.io/bbolt", modulePath+"pkg/fleet"), ""},
		{"upwards", "pkg/bundle/bundle.go", source("bundle", modulePath+"hub/internal/store"), "imports go strictly down"},
		{"sideways", "hub/internal/blob/blob.go", source("blob", modulePath+"hub/internal/store"), "both on floor 2 (adapters)"},
		{"sideways but meant", "pkg/render/render.go", source("render", modulePath+"pkg/bundle"), ""},
		{"across", "hub/hub.go", source("hub", modulePath+"spoke/internal/agent"), "belong to two companies"},
		{"door", "hub/internal/tagwatch/tagwatch.go", source("tagwatch", "github.com/go-git/go-git/v5/plumbing"), "whose door is pkg/gitrepo"},
		{"door for a part", "spoke/internal/apply/apply.go", source("apply", "k8s.io/client-go/kubernetes/scheme"), "whose door is pkg/manifest"},
		{"open door", "spoke/internal/apply/apply.go", source("apply", "k8s.io/client-go/rest"), ""},
		{"tests are free", "pkg/fleet/fleet_test.go", source("fleet", "k8s.io/client-go/rest"), ""},
		{"no floor", "pkg/util/util.go", source("util"), "is on no floor"},
		{"no doc", "pkg/table/table.go", "package table\n", "no package doc"},
		{"doc elsewhere", "pkg/table/doc.go", source("table"), "belongs in pkg/table/table.go"},
		{"two docs", "pkg/fleet/more.go", source("fleet"), "has 2 package docs"},
		{"another module", "integration/controlplane/x/x.go", "package x\nimport _ \"k8s.io/api\"\n", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			broken, err := violations(fstest.MapFS{
				"pkg/fleet/fleet.go":                {Data: []byte(source("fleet"))},
				"integration/controlplane/x/go.mod": {Data: []byte("module x\n")},
				test.file:                           {Data: []byte(test.text)},
			})
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(broken, "\n"); test.want == "" && got != "" || !strings.Contains(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
