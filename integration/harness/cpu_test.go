package harness

import (
	"os"
	"testing"
	"time"
)

func TestCPUTimeGrows(t *testing.T) {
	before, err := cpuOf(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(100 * time.Millisecond); time.Now().Before(end); { // work, not waiting
	}
	after, err := cpuOf(os.Getpid())
	if err != nil || after-before < 20*time.Millisecond || after-before > 10*time.Second {
		t.Errorf("a tenth of a second of work counts %s, %v", after-before, err)
	}
}
