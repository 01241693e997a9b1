package harness

import (
	"os"
	"testing"
	"time"
)

// Work shows as CPU time, however busy the machine is.
func TestCPUTimeGrows(t *testing.T) {
	begin := time.Now()
	before, err := CPU(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for after := before; after-before < 5*tick; {
		if after, err = CPU(os.Getpid()); err != nil || time.Since(begin) > time.Minute {
			t.Fatalf("a minute of work counts %s, %v", after-before, err)
		}
	}
	if after, _ := CPU(os.Getpid()); after-before > 100*time.Since(begin) {
		t.Errorf("%s of CPU time in %s", after-before, time.Since(begin))
	}
}
