package store

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

const childEnv = "WHEELWRIGHT_STORE_TEST_CHILD"

func TestMain(m *testing.M) {
	if path := os.Getenv(childEnv); path != "" {
		recordForEver(path)
	}
	if path := os.Getenv(compactEnv); path != "" {
		compactForEver(path)
	}
	os.Exit(m.Run())
}

// recordForEver is the child that gets killed: each line it prints is an event number that it was told
// is on disk.
func recordForEver(path string) {
	s, err := Open(path, discard)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	for seq := uint64(1); ; seq++ {
		i := installation("1.0.0", time.Now())
		i.Ready = int(seq)
		acked, err := s.RecordEvents(eu, "j", []fleet.Event{{Seq: seq, Kind: fleet.EventHealth, Distribution: i.Distribution, Message: strings.Repeat("x", 200), Installation: &i}})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(acked)
	}
}

// Law 9: recorded before acknowledged.
func TestLaw9WhatWasAcknowledgedSurvivesKill9(t *testing.T) {
	for round := range 3 {
		path := filepath.Join(t.TempDir(), "hub.db")
		s, err := Open(path, discard)
		must(t, err)
		invite(t, s, eu, "t", start)
		must(t, s.Close())

		child := exec.Command(os.Args[0])
		child.Env = append(os.Environ(), childEnv+"="+path)
		out, err := child.StdoutPipe()
		must(t, err)
		must(t, child.Start())
		lines := bufio.NewScanner(out)
		var last uint64
		for lines.Scan() {
			var seq uint64
			if _, err := fmt.Sscan(lines.Text(), &seq); err != nil {
				t.Errorf("child said %q", lines.Text())
				break
			}
			last = seq
			if last == uint64(20+round*17) {
				must(t, child.Process.Kill()) // what it still prints until it is gone counts too
			}
		}
		_ = child.Wait() // killed, as wanted

		s, err = Open(path, discard)
		must(t, err)
		acked, err := s.AckedSeq(eu, "j")
		must(t, err)
		events, err := s.Events(EventFilter{Cluster: string(eu)})
		must(t, err)
		i, _ := s.Installation(eu, "shop")
		if acked < last || uint64(len(events)) != acked || uint64(i.Ready) != acked {
			t.Errorf("acknowledged up to %d; on disk %d, %d events and %d that are ready", last, acked, len(events), i.Ready)
		}
		must(t, s.Close())
	}
}

func TestASecondProcessIsToldWhoHasTheFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	_, err = Open(path, discard)
	wantErr(t, err, ErrLocked, path, "lsof "+path)
	must(t, s.Close())
	s, err = Open(path, discard)
	must(t, err)
	must(t, s.Close())
}

func TestAFileOfANewerHubIsLeftAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := open(path, discard, append(steps(), func(*bolt.Tx) error { return nil }))
	must(t, err)
	must(t, s.Close())
	before, err := os.ReadFile(path)
	must(t, err)
	_, err = Open(path, discard)
	wantErr(t, err, ErrNewerSchema, path, fmt.Sprintf("schema is %d", len(steps())+2), "backup")
	after, err := os.ReadFile(path)
	must(t, err)
	if string(before) != string(after) {
		t.Error("the file was changed")
	}
}

func TestAnOlderFileIsMigratedWithACopyKeptBeside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	must(t, s.AddDistribution(fleet.Distribution{Name: "shop", URL: "old"}))
	must(t, s.Close())

	broken := errors.New("step broke")
	next := len(steps()) + 1 // the schema that this hub writes
	_, err = open(path, discard, append(steps(), renameURL, func(*bolt.Tx) error { return broken }))
	wantErr(t, err, broken, fmt.Sprintf("schema %d to %d", next+1, next+2))

	runs := 0
	more := append(steps(), renameURL, func(*bolt.Tx) error { runs++; return nil })
	for range 2 { // the second time there is nothing to do
		s, err = open(path, discard, more)
		must(t, err)
		all, err := s.Distributions()
		must(t, err)
		if len(all) != 1 || all[0].URL != "new" {
			t.Errorf("after migration: %+v", all)
		}
		must(t, s.Close())
	}
	if runs != 1 {
		t.Errorf("the step ran %d times", runs)
	}
	old, err := Open(fmt.Sprintf("%s.schema-%d", path, next), discard)
	must(t, err)
	all, err := old.Distributions()
	must(t, err)
	if len(all) != 1 || all[0].URL != "old" {
		t.Errorf("the copy: %+v", all)
	}
	must(t, old.Close())
}

func renameURL(tx *bolt.Tx) error {
	return put(tx.Bucket(bucketDistributions), []byte("shop"), distributionRecord{URL: "new"})
}

func TestAFileThatIsNoStoreIsNamedNotChanged(t *testing.T) {
	foreign := filepath.Join(t.TempDir(), "foreign.db")
	db, err := bolt.Open(foreign, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error { _, err := tx.CreateBucket([]byte("theirs")); return err }))
	must(t, db.Close())
	text := filepath.Join(t.TempDir(), "text.db")
	must(t, os.WriteFile(text, []byte(strings.Repeat("hello\n", 10_000)), 0o600))
	short := filepath.Join(t.TempDir(), "short.db")
	must(t, os.WriteFile(short, []byte("hello"), 0o600))
	for _, path := range []string{foreign, text, short} {
		_, err := Open(path, discard)
		wantErr(t, err, ErrCorrupt, path, "mv "+path, "backup")
	}
	if _, err := Open(t.TempDir(), discard); err == nil {
		t.Error("opened a folder")
	}
}

// A damaged file is refused or, where the damage is outside what is used, read; it never brings the
// process down.
func TestADamagedFileNeverPanics(t *testing.T) {
	good := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(good, discard)
	must(t, err)
	invite(t, s, eu, "t", start)
	for i := range 40 {
		_, err := s.RecordEvents(eu, "j", []fleet.Event{{Seq: uint64(i + 1), Kind: fleet.EventPhase, Message: strings.Repeat("x", 900)}})
		must(t, err)
	}
	must(t, s.Close())
	data, err := os.ReadFile(good)
	must(t, err)
	page := os.Getpagesize()
	random := rand.New(rand.NewPCG(1, 2))
	dir := t.TempDir()
	refused := 0
	try := func(name string, damaged []byte, mustRefuse bool) {
		path := filepath.Join(dir, "hub.db")
		must(t, os.WriteFile(path, damaged, 0o600))
		s, err := Open(path, discard)
		switch {
		case err == nil && mustRefuse:
			t.Errorf("%s: opened", name)
		case err != nil && !errors.Is(err, ErrCorrupt):
			t.Fatalf("%s: %v", name, err)
		case err != nil:
			refused++
		}
		if err == nil {
			must(t, s.Close())
		}
	}
	m, _ := newestMeta(bytes.NewReader(data))
	used := int(m.pages) * page // bbolt grows its file ahead; what it does not use yet can be cut
	for size := page; size < len(data); size += page {
		try(fmt.Sprint("cut to ", size), data[:size], size < used)
	}
	for at := 0; at < len(data); at += page {
		zeroed := append([]byte(nil), data...)
		clear(zeroed[at : at+page])
		try(fmt.Sprint("page zeroed at ", at), zeroed, false)
		noise := append([]byte(nil), data...)
		for i := range page {
			noise[at+i] = byte(random.Uint32())
		}
		try(fmt.Sprint("noise at ", at), noise, false)
	}
	bothMetas := append([]byte(nil), data...)
	clear(bothMetas[:2*page])
	try("no meta page", bothMetas, true)
	for i := range 50 {
		flipped := append([]byte(nil), data...)
		flipped[random.IntN(len(flipped))] ^= 1 << random.IntN(8)
		try(fmt.Sprint("bit ", i), flipped, false)
	}
	for i := range 300 { // where a wrong number leads astray
		flipped := append([]byte(nil), data...)
		flipped[random.IntN(len(data)/page)*page+random.IntN(96)] ^= 1 << random.IntN(8)
		try(fmt.Sprint("header bit ", i), flipped, false)
	}
	if refused < 100 {
		t.Errorf("only %d damaged files were refused", refused)
	}
}

func TestAFileWithoutABucketIsNamed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	s, err := Open(path, discard)
	must(t, err)
	must(t, s.update(func(tx *txn) error { return tx.DeleteBucket(bucketPins) }))
	must(t, s.Close())
	_, err = Open(path, discard)
	wantErr(t, err, ErrCorrupt, path, "bucket pins is missing")
}

func TestAHubKilledWhileMakingItsFileStartsAgain(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hub.db")
	db, err := bolt.Open(path, 0o600, nil) // the file as it is before the first transaction
	must(t, err)
	must(t, db.Close())
	s, err := Open(path, discard)
	must(t, err)
	must(t, s.AppendEvent(fleet.Event{At: time.Now(), Kind: fleet.EventPublished}))
	must(t, s.Close())
}

func TestAFolderThatCannotBeWrittenSaysWhatToDo(t *testing.T) {
	for _, cause := range []error{syscall.EACCES, syscall.EROFS} {
		err := refusal("/data/hub.db", &os.PathError{Op: "open", Path: "/data/hub.db", Err: cause})
		if !errors.Is(err, cause) || !strings.Contains(err.Error(), "`ls -ld /data`") {
			t.Errorf("got %v", err)
		}
	}
}
