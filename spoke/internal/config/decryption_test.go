package config

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestDecryption(t *testing.T) {
	path := write(t, `version: 1
decryption: {age: [a.txt, /keys/b.txt]}
subscriptions:
- {distribution: shop, variant: app, namespace: shop}
- {distribution: till, variant: app, namespace: till, decryption: {age: [c.txt]}}
`)
	c, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Dir(path)
	if got := c.Subscriptions[0].Decryption.Age; !slices.Equal(got, []string{filepath.Join(dir, "a.txt"), "/keys/b.txt"}) {
		t.Errorf("the default is %v", got)
	}
	if got := c.Subscriptions[1].Decryption.Age; !slices.Equal(got, []string{filepath.Join(dir, "c.txt")}) {
		t.Errorf("the subscription's own are %v", got)
	}
	for text, want := range map[string]string{
		"decryption: {}":               "decryption.age: missing",
		"decryption: {age: []}":        "decryption.age: missing",
		"decryption: {age: ['']}":      "decryption.age[0]: empty",
		"decryption: {pgp: [x]}":       "unknown key",
		"decryption: [x]":              "decryption",
		"decryption: {age: {file: x}}": "decryption.age",
	} {
		_, err := Load(write(t, "version: 1\nsubscriptions: []\n"+text+"\n"))
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
