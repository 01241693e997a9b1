package sops_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/sops"
)

func read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// ring opens copies of identities that only their owner can read, as a checkout may not leave them.
func ring(t *testing.T, names ...string) *sops.Ring {
	t.Helper()
	var k sops.Keys
	for _, name := range names {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, read(t, name), 0o600); err != nil {
			t.Fatal(err)
		}
		k.Age = append(k.Age, path)
	}
	r, err := k.Open()
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func documents(t *testing.T, data []byte) (all []any) {
	t.Helper()
	for d := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var v any
		if err := d.Decode(&v); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		all = append(all, v)
	}
}

// What the tool itself encrypted is read as it reads it.
func TestAsTheToolDoes(t *testing.T) {
	r := ring(t, "age.txt")
	for _, name := range []string{"doc.sops.yaml", "doc.sops.json", "doc.sops.env", "doc.sops.bin", "two.sops.yaml", "suffix.sops.yaml", "unregex.sops.yaml", "maconly.sops.yaml", "secret.sops.yaml"} {
		p, encrypted, err := r.Decrypt(name, read(t, name))
		if err != nil || !encrypted {
			t.Errorf("%s: encrypted %t, %v", name, encrypted, err)
			continue
		}
		if bytes.Contains(p.Data, []byte("ENC[AES256_GCM,data")) || bytes.Contains(p.Data, []byte("lastmodified")) || len(p.Values) == 0 {
			t.Errorf("%s: something of SOPS' own is left, or no values: %v\n%s", name, p.Values, p.Data)
		}
		switch filepath.Ext(name) {
		case ".yaml":
			if got, want := documents(t, p.Data), documents(t, read(t, strings.Replace(name, ".sops.", ".tool.", 1))); !reflect.DeepEqual(got, want) {
				t.Errorf("%s:\ngot  %v\nwant %v", name, got, want)
			}
		case ".json":
			var got, want any
			if err := errors.Join(json.Unmarshal(p.Data, &got), json.Unmarshal(read(t, "doc.tool.json"), &want)); err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v\ngot  %v\nwant %v", name, err, got, want)
			}
		case ".env":
			if want := strings.Replace(string(read(t, "doc.tool.env")), "# comment\n", "", 1); string(p.Data) != want {
				t.Errorf("%s:\ngot  %q\nwant %q", name, p.Data, want)
			}
		default:
			if string(p.Data) != string(read(t, "doc.plain.bin")) {
				t.Errorf("%s: got %q", name, p.Data)
			}
		}
	}
}

func TestWhatIsNotEncryptedIsLeft(t *testing.T) {
	for name, text := range map[string]string{"a.yaml": "sops: is a tool\nmac: x\n", "b.json": `{"sops": 1}`, "c.env": "A=b\n", "d.bin": "\x00\x01", "e.yaml": ""} {
		if _, encrypted, err := (*sops.Ring)(nil).Decrypt(name, []byte(text)); encrypted || err != nil {
			t.Errorf("%s: %t %v", name, encrypted, err)
		}
	}
}

// Each error is of its kind, names the file and what to do, and quotes nothing of it.
func TestWhatIsRefused(t *testing.T) {
	mine, secret := ring(t, "age.txt"), string(read(t, "secret.sops.yaml"))
	changed := func(pattern, to string) []byte {
		out := regexp.MustCompile(pattern).ReplaceAllString(secret, to)
		if out == secret {
			t.Fatalf("%s changes nothing", pattern)
		}
		return []byte(out)
	}
	values := regexp.MustCompile(`ENC\[[^]]*type:str\]`).FindAllString(secret, 2)
	for _, c := range []struct {
		what string
		ring *sops.Ring
		data []byte
		kind error
		says string
	}{
		{"no identity at all", nil, read(t, "secret.sops.yaml"), sops.ErrKey, "decryption.age"},
		{"another's", ring(t, "other.txt"), read(t, "secret.sops.yaml"), sops.ErrKey, "sops updatekeys"},
		{"for another", mine, read(t, "other.sops.json"), sops.ErrKey, "age1"},
		{"key groups", mine, read(t, "groups.sops.json"), sops.ErrKey, "--add-age"},
		{"pgp alone", mine, changed(`(?s)    age:\n.*?    lastmodified`, "    pgp:\n        - fp: ABC\n          enc: x\n    lastmodified"), sops.ErrKey, "pgp"},
		{"kms alone", mine, changed(`(?s)    age:\n.*?    lastmodified`, "    kms:\n        - arn: ABC\n          enc: x\n    lastmodified"), sops.ErrKey, "kms"},
		{"INI", mine, read(t, "ini.sops.ini"), sops.ErrFile, "use YAML"},
		{"comments that rule", mine, read(t, "comment.sops.yaml"), sops.ErrFile, "encrypted_regex"},
		{"a name in clear was changed", mine, changed(`name: db`, "name: other"), sops.ErrFile, "changed"},
		{"a key was added", mine, changed(`kind: Secret`, "kind: Secret\ntype: Opaque"), sops.ErrFile, "changed"},
		{"two values were exchanged", mine, []byte(strings.NewReplacer(values[0], values[1], values[1], values[0]).Replace(secret)), sops.ErrFile, "moved"},
		{"a value was written in clear", mine, changed(`b: ENC\[.*\]`, "b: hunter3-canary"), sops.ErrFile, "stringData.b"},
		{"a value was emptied", mine, changed(`b: ENC\[.*\]`, `b: ""`), sops.ErrFile, "changed"},
		{"a tag was cut", mine, changed(`tag:....`, "tag:"), sops.ErrFile, "sops edit"},
		{"the code was taken away", mine, changed(`    mac: .*\n`, "    mac: \"\"\n"), sops.ErrFile, "authentication"},
		{"the time was changed", mine, changed(`lastmodified: "\d+`, `lastmodified: "1999`), sops.ErrFile, "authentication"},
		{"what is encrypted was changed", mine, changed(`encrypted_regex: .*`, "encrypted_regex: ^(data)$"), sops.ErrFile, "changed"},
		{"the data key is damaged", mine, changed(`BEGIN AGE`, "BEGIN EGG"), sops.ErrFile, "data key"},
		{"an alias", mine, changed(`kind: Secret`, "kind: &x Secret\nagain: *x"), sops.ErrFile, "alias"},
		{"no metadata", mine, changed(`(?s)\nsops:.*`, "\n"), sops.ErrFile, "for whom"},
		{"no YAML", mine, []byte(secret + "a: [hunter3-canary"), sops.ErrFile, "no YAML"},
	} {
		p, encrypted, err := c.ring.Decrypt("db.sops.yaml", c.data)
		if !encrypted || !errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), "db.sops.yaml") {
			t.Errorf("%s: encrypted %t: %v, want %v that says %q", c.what, encrypted, err, c.kind, c.says)
		}
		if len(p.Data) > 0 || err != nil && (strings.Contains(err.Error(), "hunter") || strings.Contains(err.Error(), "ENC[")) {
			t.Errorf("%s: it hands out %q: %v", c.what, p.Data, err)
		}
	}
}

func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "key.txt")
	for _, c := range []struct {
		text string
		mode os.FileMode
		says string
	}{
		{string(read(t, "age.txt")), 0o644, "chmod 600"},
		{string(read(t, "age.txt")), 0o640, "chmod 600"},
		{"AGE-SECRET-KEY-1NONE\n", 0o600, "something else"},
		{strings.Repeat("#", 1<<17), 0o600, "is it a file of age identities"},
	} {
		os.Remove(path)
		if err := os.WriteFile(path, []byte(c.text), c.mode); err != nil {
			t.Fatal(err)
		}
		_, err := sops.Keys{Age: []string{path}}.Open()
		if !errors.Is(err, sops.ErrKey) || !strings.Contains(err.Error(), c.says) || !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "1NONE") {
			t.Errorf("%v", err)
		}
	}
	os.Remove(path)
	if os.Geteuid() == 0 { // as Kubernetes mounts a Secret for a pod's group
		if err := errors.Join(os.WriteFile(path, read(t, "age.txt"), 0o600), os.Chown(path, 65532, 65532), os.Chmod(path, 0o440)); err != nil {
			t.Fatal(err)
		}
		if _, err := (sops.Keys{Age: []string{path}}).Open(); err != nil {
			t.Error(err)
		}
	}
	if _, err := (sops.Keys{Age: []string{dir}}).Open(); err == nil || !strings.Contains(err.Error(), "is no file") {
		t.Error(err)
	}
	if _, err := (sops.Keys{Age: []string{filepath.Join(dir, "none")}}).Open(); err == nil || !strings.Contains(err.Error(), "age-keygen -o") {
		t.Error(err)
	}
}

func TestSeal(t *testing.T) {
	mine, plain := ring(t, "age.txt"), []byte("kind: Secret\n")
	data, err := mine.Seal(plain)
	if err != nil || !sops.Sealed(data) || sops.Sealed(plain) || bytes.Contains(data, []byte("Secret")) {
		t.Fatalf("%v: %q", err, data)
	}
	if got, err := ring(t, "other.txt", "age.txt").Unseal(data); err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%v: %q", err, got)
	}
	for what, r := range map[string]*sops.Ring{"another's": ring(t, "other.txt"), "none": nil} {
		if _, err := r.Unseal(data); !errors.Is(err, sops.ErrKey) || !strings.Contains(err.Error(), "age1") {
			t.Errorf("%s: %v", what, err)
		}
	}
	data[len(data)-1] ^= 1
	if _, err := mine.Unseal(data); err == nil {
		t.Error("what was changed is read")
	}
	if _, err := mine.Unseal(plain); !errors.Is(err, sops.ErrFile) {
		t.Error(err)
	}
}

// Whatever a file holds, it is read or refused.
func FuzzDecrypt(f *testing.F) {
	names, _ := filepath.Glob("testdata/*.sops.*")
	for _, name := range names {
		data, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(filepath.Base(name), data)
	}
	key, err := os.ReadFile("testdata/age.txt")
	if err != nil {
		f.Fatal(err)
	}
	path := filepath.Join(f.TempDir(), "key.txt")
	if err := os.WriteFile(path, key, 0o600); err != nil {
		f.Fatal(err)
	}
	r, err := sops.Keys{Age: []string{path}}.Open()
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		p, encrypted, err := r.Decrypt(name, data)
		if (err != nil || !encrypted) && len(p.Data) > 0 {
			t.Errorf("%q handed out of a file that was refused, or not encrypted: %v", p.Data, err)
		}
	})
}
