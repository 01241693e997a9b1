package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"runtime/debug"
	"slices"
	"strings"
)

// The parts of CycloneDX 1.6 (https://cyclonedx.org/docs/1.6/json/) that are needed.
type (
	billDocument struct {
		Format       string       `json:"bomFormat"`
		Spec         string       `json:"specVersion"`
		Version      int          `json:"version"`
		Metadata     metadata     `json:"metadata"`
		Components   []component  `json:"components"`
		Dependencies []dependency `json:"dependencies"`
	}
	metadata struct {
		Component  component  `json:"component"`
		Properties []property `json:"properties"`
	}
	component struct {
		Type       string     `json:"type"`
		Ref        string     `json:"bom-ref"`
		Name       string     `json:"name"`
		Version    string     `json:"version"`
		PURL       string     `json:"purl,omitempty"`
		Hashes     []hash     `json:"hashes,omitempty"`
		Properties []property `json:"properties,omitempty"`
	}
	hash struct {
		Algorithm string `json:"alg"`
		Content   string `json:"content"`
	}
	property struct {
		Name  string `json:"name"`
		Value string `json:"value"`
	}
	dependency struct {
		Ref  string   `json:"ref"`
		Over []string `json:"dependsOn"`
	}
)

// billOfMaterials says what each binary is made of, as the linker wrote it into the binary: every module
// with its version and the sum that go.sum holds it to, the standard library by the Go that built it.
// Nothing in it is of the time or the machine.
func billOfMaterials(version, commit, platform string, binaries []binary) ([]byte, error) {
	root := component{Type: "application", Ref: module, Name: module, Version: version, PURL: purl(module, version)}
	bill := billDocument{Format: "CycloneDX", Spec: "1.6", Version: 1,
		Metadata: metadata{Component: root, Properties: []property{{"wheelwright:commit", commit}, {"wheelwright:platform", platform}}}}
	modules := map[string]component{}
	whole := dependency{Ref: root.Ref}
	for _, b := range binaries {
		program := component{Type: "application", Ref: "binary:" + b.name, Name: b.name, Version: version,
			Hashes: []hash{{"SHA-256", fmt.Sprintf("%x", sha256.Sum256(b.data))}}, Properties: settingsOf(b.info)}
		over := dependency{Ref: program.Ref}
		needs := []component{{Type: "library", Ref: purl("std", b.info.GoVersion), Name: "std", Version: b.info.GoVersion, PURL: purl("std", b.info.GoVersion)}}
		for _, m := range b.info.Deps {
			c, err := moduleOf(m)
			if err != nil {
				return nil, err
			}
			needs = append(needs, c)
		}
		for _, c := range needs {
			modules[c.Ref] = c
			over.Over = append(over.Over, c.Ref)
		}
		slices.Sort(over.Over)
		bill.Components = append(bill.Components, program)
		bill.Dependencies = append(bill.Dependencies, over)
		whole.Over = append(whole.Over, program.Ref)
	}
	for _, ref := range slices.Sorted(maps.Keys(modules)) {
		bill.Components = append(bill.Components, modules[ref])
	}
	bill.Dependencies = append(bill.Dependencies, whole)
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	err := e.Encode(bill)
	return out.Bytes(), err
}

// moduleOf is a module as it was linked; one that replaces another stands in its place.
func moduleOf(m *debug.Module) (component, error) {
	if m.Replace != nil {
		m = m.Replace
	}
	coded, ok := strings.CutPrefix(m.Sum, "h1:")
	sum, err := base64.StdEncoding.DecodeString(coded)
	if !ok || err != nil {
		return component{}, fmt.Errorf("module %s %s has no sum: build from the sources as they are, without a vendor folder or a local replacement", m.Path, m.Version)
	}
	return component{Type: "library", Ref: purl(m.Path, m.Version), Name: m.Path, Version: m.Version, PURL: purl(m.Path, m.Version),
		Hashes: []hash{{"SHA-256", hex.EncodeToString(sum)}}, Properties: []property{{"wheelwright:go.sum", m.Sum}}}, nil
}

// settingsOf are Go's version and what the binary says of how it was built.
func settingsOf(info *buildinfo.BuildInfo) []property {
	all := []property{{"wheelwright:go", info.GoVersion}}
	for _, s := range info.Settings {
		all = append(all, property{"wheelwright:build:" + s.Key, s.Value})
	}
	return all
}

// purl is a package URL (https://github.com/package-url/purl-spec).
func purl(module, version string) string {
	parts := strings.Split(module, "/")
	for i, p := range parts {
		parts[i] = url.PathEscape(p)
	}
	return "pkg:golang/" + strings.Join(parts, "/") + "@" + url.QueryEscape(version)
}
