package sops

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// form is how a file is written.
type form string

const (
	plain      form = "" // not encrypted
	yamlForm   form = "YAML"
	jsonForm   form = "JSON"
	dotenvForm form = "dotenv"
	binaryForm form = "binary"
	brokenForm form = "broken" // it has encrypted values and nothing that says for whom
	iniForm    form = "INI"
)

const metadataKey = "sops"

var (
	yamlMark   = regexp.MustCompile(`(?m)^sops:\s*(#.*)?$`)
	jsonMark   = regexp.MustCompile(`"sops"\s*:\s*\{`)
	dotenvMark = regexp.MustCompile(`(?m)^sops_mac=`)
	iniMark    = regexp.MustCompile(`(?m)^\[sops\]\s*$`)
)

// formOf looks at the content, as the tool does not: a name says little about a file that kustomize reads.
func formOf(name string, data []byte) form {
	values := bytes.Contains(data, []byte("ENC[AES256_GCM,"))
	switch trimmed := bytes.TrimSpace(data); {
	case bytes.HasPrefix(trimmed, []byte("{")) && jsonMark.Match(data) && bytes.Contains(data, []byte(`"mac"`)):
		if ext := path.Ext(name); ext == ".json" || ext == ".yaml" || ext == ".yml" || !isBinary(trimmed) {
			return jsonForm
		}
		return binaryForm
	case dotenvMark.Match(data):
		return dotenvForm
	case iniMark.Match(data) && values:
		return iniForm
	case yamlMark.Match(data) && bytes.Contains(data, []byte("mac:")):
		return yamlForm
	case values:
		return brokenForm
	}
	return plain
}

// isBinary: one value under "data", beside the metadata.
func isBinary(data []byte) bool {
	var m map[string]json.RawMessage
	if json.Unmarshal(data, &m) != nil || len(m) != 2 {
		return false
	}
	var text string
	return json.Unmarshal(m["data"], &text) == nil && m[metadataKey] != nil
}

func (f form) parse(data []byte) (*tree, error) {
	switch f {
	case yamlForm:
		return parseYAML(data)
	case jsonForm, binaryForm:
		return parseJSON(data)
	case dotenvForm:
		return parseDotenv(data)
	case iniForm:
		return nil, errors.New("INI files are not read here; use YAML, JSON, dotenv or a binary file")
	}
	return nil, errors.New("it has encrypted values, and nothing that says for whom: the key sops is missing; encrypt it again")
}

func (f form) write(t *tree) ([]byte, error) {
	switch f {
	case yamlForm:
		return writeYAML(t)
	case jsonForm:
		var b bytes.Buffer
		err := writeJSON(&b, t.documents[0])
		return append(b.Bytes(), '\n'), err
	case dotenvForm:
		return writeDotenv(t), nil
	}
	n := t.documents[0]
	if len(n.Content) != 2 || n.Content[0].Value != "data" {
		return nil, errors.New("a binary file has its content under data, and nothing else")
	}
	return []byte(n.Content[1].Value), nil
}

// taken takes the metadata out of a document.
func taken(doc *yaml.Node) *yaml.Node {
	for i := 0; i+1 < len(doc.Content); i += 2 {
		if doc.Content[i].Value == metadataKey {
			meta := doc.Content[i+1]
			doc.Content = slices.Delete(doc.Content, i, i+2)
			return meta
		}
	}
	return nil
}

func (t *tree) add(doc *yaml.Node) error {
	if doc.Kind != yaml.MappingNode {
		return errors.New("a document of it is no mapping")
	}
	if meta := taken(doc); meta != nil && len(t.documents) == 0 {
		if err := meta.Decode(&t.meta); err != nil {
			return errors.New("what it says of itself under sops cannot be read")
		}
	}
	t.documents = append(t.documents, doc)
	return nil
}

func parseYAML(data []byte) (*tree, error) {
	t := &tree{}
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var doc yaml.Node
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil || len(doc.Content) != 1 { // the error may quote a value
			return nil, fmt.Errorf("its document %d is no YAML", len(t.documents)+1)
		}
		if err := t.add(doc.Content[0]); err != nil {
			return nil, err
		}
	}
	if len(t.documents) == 0 {
		return nil, errors.New("it is empty")
	}
	return t, nil
}

func writeYAML(t *tree) ([]byte, error) {
	var b bytes.Buffer
	e := yaml.NewEncoder(&b)
	e.SetIndent(2)
	for _, d := range t.documents {
		if err := e.Encode(d); err != nil {
			return nil, errors.New("it cannot be written as YAML")
		}
	}
	return b.Bytes(), e.Close()
}

func parseJSON(data []byte) (*tree, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	doc, err := readJSON(d, 0)
	if err == nil {
		if _, more := d.Token(); more != io.EOF {
			err = errors.New("more follows")
		}
	}
	if err != nil {
		return nil, errors.New("it is no JSON")
	}
	t := &tree{numbers: true}
	return t, t.add(doc)
}

const deepest = 200 // levels of a JSON file

func readJSON(d *json.Decoder, depth int) (*yaml.Node, error) {
	token, err := d.Token()
	if err != nil {
		return nil, err
	}
	scalar := func(tag, value string) (*yaml.Node, error) {
		return &yaml.Node{Kind: yaml.ScalarNode, Tag: tag, Value: value}, nil
	}
	switch v := token.(type) {
	case string:
		return scalar("!!str", v)
	case bool:
		return scalar("!!bool", fmt.Sprint(v))
	case nil:
		return scalar("!!null", "null")
	case json.Number:
		if _, err := v.Int64(); err == nil {
			return scalar("!!int", v.String())
		}
		return scalar("!!float", v.String())
	}
	n := &yaml.Node{Kind: yaml.SequenceNode, Tag: "!!seq"}
	if token == json.Delim('{') {
		n.Kind, n.Tag = yaml.MappingNode, "!!map"
	}
	if depth == deepest {
		return nil, errors.New("too deep")
	}
	for d.More() { // of an object: keys and values in turn
		child, err := readJSON(d, depth+1)
		if err != nil {
			return nil, err
		}
		n.Content = append(n.Content, child)
	}
	_, err = d.Token()
	return n, err
}

func writeJSON(b *bytes.Buffer, n *yaml.Node) error {
	switch n.Kind {
	case yaml.MappingNode, yaml.SequenceNode:
		ends := "[]"
		if n.Kind == yaml.MappingNode {
			ends = "{}"
		}
		b.WriteByte(ends[0])
		for i, c := range n.Content {
			switch {
			case i == 0:
			case n.Kind == yaml.MappingNode && i%2 == 1:
				b.WriteByte(':')
			default:
				b.WriteByte(',')
			}
			if err := writeJSON(b, c); err != nil {
				return err
			}
		}
		b.WriteByte(ends[1])
		return nil
	}
	if n.ShortTag() != "!!str" && n.ShortTag() != "!!timestamp" {
		b.WriteString(n.Value)
		return nil
	}
	text, err := json.Marshal(n.Value)
	b.Write(text)
	return err
}

const dotenvPrefix = "sops_"

var listItem = regexp.MustCompile(`^([a-z_]+?)__list_(\d+)__map_([a-z_]+)$`)

// parseDotenv reads KEY=value lines; the metadata is spread over keys of its own.
func parseDotenv(data []byte) (*tree, error) {
	doc, meta := &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}, &yaml.Node{Kind: yaml.MappingNode, Tag: "!!map"}
	lists := map[string][]map[string]string{}
	text := func(s string) *yaml.Node { return &yaml.Node{Kind: yaml.ScalarNode, Tag: "!!str", Value: s} }
	for n, line := range strings.Split(string(data), "\n") {
		key, value, found := strings.Cut(line, "=")
		switch {
		case line == "", line[0] == '#':
			continue
		case !found:
			return nil, fmt.Errorf("line %d is no KEY=value", n+1)
		}
		value = strings.ReplaceAll(value, `\n`, "\n")
		about, isMeta := strings.CutPrefix(key, dotenvPrefix)
		m := listItem.FindStringSubmatch(about)
		switch {
		case !isMeta:
			doc.Content = append(doc.Content, text(key), text(value))
		case m != nil:
			var at int
			if fmt.Sscan(m[2], &at); at > 100 {
				return nil, fmt.Errorf("line %d: too many keys", n+1)
			}
			for len(lists[m[1]]) <= at {
				lists[m[1]] = append(lists[m[1]], map[string]string{})
			}
			lists[m[1]][at][m[3]] = value
		case about == "mac_only_encrypted" || about == "shamir_threshold":
			meta.Content = append(meta.Content, text(about), &yaml.Node{Kind: yaml.ScalarNode, Value: value})
		default:
			meta.Content = append(meta.Content, text(about), text(value))
		}
	}
	for name, items := range lists {
		var n yaml.Node
		if err := n.Encode(items); err != nil {
			return nil, errors.New("what it says of itself cannot be read")
		}
		meta.Content = append(meta.Content, text(name), &n)
	}
	doc.Content = append(doc.Content, text(metadataKey), meta)
	t := &tree{}
	return t, t.add(doc)
}

func writeDotenv(t *tree) []byte {
	var b bytes.Buffer
	c := t.documents[0].Content
	for i := 0; i+1 < len(c); i += 2 {
		fmt.Fprintf(&b, "%s=%s\n", c[i].Value, strings.ReplaceAll(c[i+1].Value, "\n", `\n`))
	}
	return b.Bytes()
}
