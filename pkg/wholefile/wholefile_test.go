package wholefile_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

func names(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return strings.Join(all, " ")
}

func TestAFileIsReplacedAndNothingStaysBeside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "identity.json")
	for _, text := range []string{"a long first one", "next"} {
		if err := wholefile.Write(path, ".identity-*", []byte(text)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(path); err != nil || string(got) != text {
			t.Errorf("got %q, %v", got, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if got := names(t, dir); got != "identity.json" {
		t.Errorf("the folder has %s", got)
	}
}

func TestWhatCannotBePutInPlaceLeavesWhatThereWas(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "taken")
	if err := os.MkdirAll(filepath.Join(path, "inside"), 0o700); err != nil { // no file takes a folder's place
		t.Fatal(err)
	}
	if err := wholefile.Write(path, ".taken-*", []byte("next")); err == nil {
		t.Error("a folder was written over")
	}
	if got := names(t, dir); got != "taken" {
		t.Errorf("the folder has %s", got)
	}
	if err := wholefile.Write(filepath.Join(dir, "none", "file"), ".file-*", nil); !os.IsNotExist(err) {
		t.Errorf("got %v", err)
	}
}
