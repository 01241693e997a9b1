package store

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const compactEnv = "WHEELWRIGHT_STORE_TEST_COMPACT"

// compactForEver is the child that gets killed: it says when it is through.
func compactForEver(path string) {
	for {
		if _, _, err := Compact(path); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("compacted")
	}
}

// Whenever a compaction is killed, the file is the one before or the one after, whole; and the next compaction clears up.
func TestACompactionThatIsKilledLosesNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	must(t, s.update(func(tx *txn) error {
		for n := range 10_000 {
			if err := appendEvent(tx, fleet.Event{At: start, Cluster: eu, Kind: fleet.EventAgent, Message: strings.Repeat("x", 1000+n%7)}); err != nil {
				return err
			}
		}
		return nil
	}))
	must(t, s.Close())
	db, err := openChecked(path)
	must(t, err)
	want := contents(t, db)
	must(t, db.Close())
	copied := func(least int64) func() bool {
		return func() bool {
			info, err := os.Stat(path + ".compact")
			return err == nil && info.Size() >= least
		}
	}
	gone := func() bool { _, err := os.Stat(path + ".compact"); return err != nil }
	for when, is := range map[string][]func() bool{
		"when the copy is begun":         {gone, copied(0)},
		"in the middle of the copy":      {gone, copied(5 << 20)},
		"when the copy has got the name": {copied(8 << 20), gone},
	} {
		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), compactEnv+"="+path)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		t.Cleanup(func() { _ = child.Process.Kill() }) // where the test ends before
		lines := bufio.NewScanner(out)
		if !lines.Scan() || lines.Text() != "compacted" { // once without a kill
			t.Errorf("%s: the child said %q", when, lines.Text())
		}
		for _, is := range is {
			until(t, when, is)
		}
		must(t, child.Process.Kill())
		for lines.Scan() {
		}
		_ = child.Wait() // killed, as wanted

		db, err := openChecked(path)
		must(t, err)
		same(t, when, contents(t, db), want)
		must(t, db.Close())
		_, _, err = Compact(path)
		must(t, err)
		if leftovers, _ := filepath.Glob(path + ".*"); len(leftovers) > 0 {
			t.Errorf("%s: left over: %q", when, leftovers)
		}
	}
}
