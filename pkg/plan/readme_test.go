package plan

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"
)

// The reference in README.md is true: its example reads and has every key, every key is explained, and what
// it says is refused is refused with these words.
func TestReadme(t *testing.T) {
	text, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	readme := string(text)
	examples := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllStringSubmatch(readme, -1)
	if len(examples) != 1 {
		t.Fatalf("%d examples, want 1", len(examples))
	}
	if _, err := Parse([]byte(examples[0][1])); err != nil {
		t.Errorf("the example: %v", err)
	}
	used := keysOf(t, examples[0][1])
	for _, key := range knownKeys(t) {
		if !used[key] {
			t.Errorf("the example has no %s", key)
		}
		if !strings.Contains(readme, "`"+key+"`") {
			t.Errorf("%s is not explained", key)
		}
	}
	_, table, _ := strings.Cut(readme, "## What is refused")
	refused := regexp.MustCompile("(?m)^\\| `(.+?)` \\| (\\S+: .*) \\|$").FindAllStringSubmatch(table, -1)
	if len(refused) < 8 {
		t.Errorf("%d refusals, want those of the table", len(refused))
	}
	for _, r := range refused {
		if _, err := Parse([]byte(r[1])); err == nil || !strings.Contains(err.Error(), r[2]) {
			t.Errorf("%s\nis said to be refused with %q; got\n%v", r[1], r[2], err)
		}
	}
}

// knownKeys has Parse name every key that it knows.
func knownKeys(t *testing.T) (all []string) {
	t.Helper()
	_, err := Parse([]byte("x: 1\nwaves: [{x: 1, verdicts: {x: 1}, clusters: {x: 1, matchExpressions: [{x: 1}]}}]"))
	if err == nil {
		t.Fatal("x is a key")
	}
	lists := regexp.MustCompile(`known here: (.+)`).FindAllStringSubmatch(err.Error(), -1)
	if len(lists) != 5 {
		t.Fatalf("%d mappings, want 5: %v", len(lists), err)
	}
	for _, l := range lists {
		all = append(all, strings.Split(l[1], ", ")...)
	}
	return all
}

// keysOf are the keys of all mappings of a text.
func keysOf(t *testing.T, text string) map[string]bool {
	t.Helper()
	var doc yaml.Node
	if err := yaml.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatal(err)
	}
	keys := map[string]bool{}
	var walk func(n *yaml.Node)
	walk = func(n *yaml.Node) {
		for i, child := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 {
				keys[child.Value] = true
			}
			walk(child)
		}
	}
	walk(&doc)
	return keys
}
