package strictyaml

import (
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"
)

// Everything that is wrong is said at once, each with its line and its key.
func TestEveryProblemIsSaid(t *testing.T) {
	const text = `
name: [a]
on: "yes"
wait: 5
long: 2d
far: 48h
names: one
absent:
deep: {nmae: x}
name: twice
`
	d := &Decoder{}
	root := d.Document([]byte(text), "empty")
	var names []*yaml.Node
	seen := d.Mapping(root, "", Fields{
		"name":   func(n *yaml.Node, key string) { d.Text(n, key) },
		"on":     func(n *yaml.Node, key string) { d.Flag(n, key) },
		"wait":   func(n *yaml.Node, key string) { d.Duration(n, key, time.Second, time.Hour) },
		"long":   func(n *yaml.Node, key string) { d.Duration(n, key, time.Second, time.Hour) },
		"far":    func(n *yaml.Node, key string) { d.Duration(n, key, time.Second, 24*time.Hour) },
		"names":  func(n *yaml.Node, key string) { names = d.List(n, key) },
		"absent": func(n *yaml.Node, key string) { t.Error("a key with nothing after it was read") },
		"deep":   func(n *yaml.Node, key string) { d.Mapping(n, key, Fields{"name": nil}) },
	})
	if seen["absent"] != nil || names != nil {
		t.Errorf("seen %v, names %v", seen, names)
	}
	want := []string{
		`line 2: name: want text, found a list`,
		`line 3: on: want true or false, found "yes"`,
		`line 4: wait: "5": want a duration with its unit, such as 90s or 24h`,
		`line 5: long: "2d": want a duration with its unit, such as 90s or 24h`,
		`line 6: far: "48h": want 1s to 24h`,
		`line 7: names: want a list, found "one"`,
		`line 9: deep.nmae: unknown key; known here: name`,
		`line 10: name: is there twice: first on line 2`,
	}
	var got []string
	for _, p := range d.Problems {
		got = append(got, p.String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestADocumentIsOneAndNotEmpty(t *testing.T) {
	for text, want := range map[string]string{"": "write something", "# nothing\n": "write something", "a: [": "not YAML: ", "a: 1\n---\nb: 2\n": "there is a second document"} {
		d := &Decoder{}
		root := d.Document([]byte(text), "write something")
		if len(d.Problems) != 1 || !strings.Contains(d.Problems[0].Message, want) || (root != nil) != strings.HasPrefix(text, "a: 1") {
			t.Errorf("%q: %v", text, d.Problems)
		}
	}
}

func TestAnAliasIsWhatItStandsFor(t *testing.T) {
	d := &Decoder{}
	root, got := d.Document([]byte("a: &x 5m\nb: *x\n"), ""), map[string]time.Duration{}
	read := func(n *yaml.Node, key string) { got[key] = d.Duration(n, key, time.Second, time.Hour) }
	d.Mapping(root, "", Fields{"a": read, "b": read})
	if len(d.Problems) > 0 || got["a"] != 5*time.Minute || got["b"] != got["a"] {
		t.Errorf("%v %v", got, d.Problems)
	}
}
