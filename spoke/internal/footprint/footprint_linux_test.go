package footprint

import (
	"os"
	"slices"
	"strings"
	"testing"
)

const smaps = `00400000-01da0000 r-xp 00000000 fe:01 1001                               /opt/bin/spoke
Rss:               24000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me dw
01dda000-039ae000 r--p 019da000 fe:01 1001                               /opt/bin/spoke
Rss:               20000 kB
Anonymous:             0 kB
02000000-02001000 r--p 019da000 fe:01 1001                               /opt/bin/spoke
Rss:                   4 kB
Anonymous:             4 kB
039ae000-03a9b000 rw-p 035ae000 fe:01 1001                               /opt/bin/spoke
Rss:                 800 kB
Anonymous:             0 kB
04000000-04001000 r-xp 00000000 fe:01 1002                               /opt/bin/spoke-other
Anonymous:             0 kB
c000000000-c001000000 rw-p 00000000 00:00 0 
Anonymous:         14000 kB
7f0000000000-7f0000001000 r--p 00000000 00:00 0                          [vvar]
Anonymous:             0 kB
`

// What was written to, or may be, is nobody's to let go of; nor is what is another file's.
func TestOnlyTheProgramsUnwrittenPagesAreLetGo(t *testing.T) {
	got, err := clean(strings.NewReader(smaps), "/opt/bin/spoke")
	if want := []mapping{{0x400000, 0x1da0000}, {0x1dda000, 0x39ae000}}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %x, %v, want %x", got, err, want)
	}
	if got, err := clean(strings.NewReader(strings.ReplaceAll(smaps, "/opt/bin/spoke\n", "/opt/bin/spoke (deleted)\n")), "/opt/bin/spoke (deleted)"); err != nil || len(got) != 2 {
		t.Errorf("of a program that was replaced: %x, %v", got, err)
	}
}

// What is let go of is gone from this process, and there again where it is used.
func TestGiveBack(t *testing.T) {
	mapped := func() (kb int) {
		text, err := os.ReadFile("/proc/self/smaps")
		if err != nil {
			t.Fatal(err)
		}
		program, err := os.Readlink("/proc/self/exe")
		if err != nil {
			t.Fatal(err)
		}
		own := false
		for line := range strings.Lines(string(text)) {
			switch f := strings.Fields(line); {
			case strings.Contains(f[0], "-"):
				own = strings.HasSuffix(strings.TrimSpace(line), program)
			case own && f[0] == "Rss:":
				n := 0
				for _, c := range f[1] {
					n = n*10 + int(c-'0')
				}
				kb += n
			}
		}
		return kb
	}
	program, err := os.ReadFile("/proc/self/exe")
	if err != nil || len(program) == 0 {
		t.Fatal(err)
	}
	before := mapped()
	for range 3 {
		if err := GiveBack(); err != nil {
			t.Fatal(err)
		}
	}
	if after := mapped(); before < 512 || after >= before {
		t.Errorf("%d kB of the program are in memory, before it were %d", after, before)
	}
	if again, err := os.ReadFile("/proc/self/exe"); err != nil || !slices.Equal(program, again) {
		t.Error("the program is another")
	}
}
