package render

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math"
	"path"
	"strings"

	"go.yaml.in/yaml/v3"
)

// documents reads a YAML file as kustomize will, without what its aliases stand for, and bounds what it
// would come to. It remembers what it found: a file may be named often.
func (s *scan) documents(file string, data []byte) (docs []*yaml.Node, ok bool) {
	if was, seen := s.measured[file]; seen && file != "" {
		return was, was != nil
	}
	docs, err := s.read(data)
	if file != "" {
		s.measured[file] = docs
	}
	if err != nil {
		s.problem(file, "%v", err)
		return nil, false
	}
	return docs, true
}

func (s *scan) read(data []byte) (docs []*yaml.Node, err error) {
	docs = []*yaml.Node{}
	var aliased int64
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		switch {
		case errors.Is(err, io.EOF):
			return docs, nil
		case err != nil && bytes.ContainsRune(data, '&') && bytes.ContainsRune(data, '*'):
			return nil, fmt.Errorf("is not readable: %w", err) // and what its aliases come to is not known
		case err != nil:
			return docs, nil // kustomize says what is wrong with it, and in its own words
		}
		m := measure{known: map[*yaml.Node]extent{}, limit: s.limits.Depth + 1} // the document is a level of its own
		whole := m.node(&doc, 0)
		aliased += whole.nodes - m.written
		switch {
		case m.cyclic:
			return nil, errors.New("an alias stands for a part of itself; write it out")
		case m.deep || whole.height > m.limit:
			return nil, fmt.Errorf("lists and mappings are nested deeper than %d; write it flatter", s.limits.Depth)
		case aliased > int64(s.limits.Aliases):
			return nil, fmt.Errorf("its aliases stand for more than %d nodes; write out what is needed, or repeat less", s.limits.Aliases)
		}
		docs = append(docs, &doc)
	}
}

// extent is what a node would come to with its aliases followed: nodes are in units of one or of 64 bytes
// of text.
type extent struct {
	nodes  int64
	height int
}

// measure finds the extent of a document, without following any alias twice.
type measure struct {
	known        map[*yaml.Node]extent // nodes -1: being counted
	written      int64                 // nodes met, aliases as nothing
	limit        int
	deep, cyclic bool
}

func (m *measure) node(n *yaml.Node, depth int) extent {
	if depth > m.limit {
		m.deep = true
		return extent{}
	}
	switch was, seen := m.known[n]; {
	case seen && was.nodes < 0:
		m.cyclic = true
		return extent{}
	case seen:
		return was
	}
	m.known[n] = extent{nodes: -1}
	var sum extent
	if n.Kind == yaml.AliasNode {
		sum = m.node(n.Alias, depth)
	} else {
		sum.nodes = 1 + int64(len(n.Value)/64)
		m.written += sum.nodes
		for _, c := range n.Content {
			e := m.node(c, depth+1)
			sum.nodes = min(sum.nodes+e.nodes, math.MaxInt32) // enough to be refused, and no overflow
			sum.height = max(sum.height, e.height+1)
		}
	}
	m.known[n] = sum
	return sum
}

// built is what a build of one folder comes to.
type built struct{ kustomizations, documents, height int }

// weigh bounds what kustomize would read, from the folders that walk met: two folders over one base read
// it twice, and so at every level above. Cycles are found on the way.
func (s *scan) weigh(root string) {
	known, under := map[string]built{}, map[string]bool{}
	var visit func(dir string, trail []string) built
	visit = func(dir string, trail []string) built {
		if b, ok := known[dir]; ok {
			return b
		}
		trail = append(trail, label(dir))
		if under[dir] {
			s.problem(dir, "is over itself: %s; take one of them out of resources or components", strings.Join(trail, " → "))
			return built{}
		}
		under[dir] = true
		sum := built{kustomizations: 1, documents: s.contents[dir]}
		for _, child := range s.over[dir] {
			b := visit(child, trail)
			sum.kustomizations = min(sum.kustomizations+b.kustomizations, math.MaxInt32)
			sum.documents = min(sum.documents+b.documents, math.MaxInt32)
			sum.height = max(sum.height, b.height+1)
		}
		under[dir], known[dir] = false, sum
		return sum
	}
	sum := visit(root, nil)
	if sum.height > s.limits.Bases {
		s.problem(root, "has kustomizations over one another %d deep, more than the %d that are followed; put some of them together", sum.height, s.limits.Bases)
	}
	if sum.kustomizations > s.limits.Builds {
		s.problem(root, "reads more than %d kustomizations, counted as often as they are read; put some of them together, or use each base fewer times", s.limits.Builds)
	}
	if sum.documents > s.limits.Objects {
		s.problem(root, "reads %s objects, counted as often as they are read; split the release, or use each base fewer times", more(sum.documents, s.limits.Objects))
	}
}

func more(n, limit int) string {
	if n == math.MaxInt32 {
		return fmt.Sprintf("far more than %d", limit)
	}
	return fmt.Sprintf("%d, more than %d,", n, limit)
}

// reads notes that a build of the folder reads the file, which is YAML.
func (s *scan) reads(kustomization, target string) {
	docs, ok := s.documents(target, s.tree.files[target])
	if !ok {
		return
	}
	n := 0
	for _, d := range docs {
		n += max(1, items(d))
	}
	s.contents[path.Dir(kustomization)] += max(n, 1)
}

// items counts the objects of a list.
func items(doc *yaml.Node) int {
	if len(doc.Content) == 0 || doc.Content[0].Kind != yaml.MappingNode {
		return 0
	}
	fields := doc.Content[0].Content
	for i := 0; i+1 < len(fields); i += 2 {
		if fields[i].Value == "items" && fields[i+1].Kind == yaml.SequenceNode {
			return len(fields[i+1].Content)
		}
	}
	return 0
}
