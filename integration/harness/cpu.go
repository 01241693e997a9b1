package harness

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// tick is the kernel's unit of CPU time in /proc, 100 a second on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// APIServerCPU is the CPU time that the cluster's API server has used so far. Only clusters that the
// harness started have one to ask.
func (c *Cluster) APIServerCPU(t testing.TB) time.Duration {
	t.Helper()
	for _, p := range c.processes {
		if !strings.HasPrefix(p.Name, "kube-apiserver") {
			continue
		}
		used, err := CPU(p.PID())
		if err != nil {
			t.Fatal(err)
		}
		return used
	}
	t.Skipf("cluster %s has no API server of ours: unset WHEELWRIGHT_KUBECONFIGS to run this", c.Name)
	return 0
}

// CPU is the processor time that a process has used so far: utime and stime of proc_pid_stat(5), the 14th and 15th fields; the second, the program's
// name, may hold spaces.
func CPU(pid int) (time.Duration, error) {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(data[strings.LastIndexByte(string(data), ')')+1:]))
	var sum int64
	for _, n := range []int{11, 12} {
		v, err := strconv.ParseInt(fields[n], 10, 64)
		if err != nil {
			return 0, fmt.Errorf("read the CPU time of process %d: %w", pid, err)
		}
		sum += v
	}
	return time.Duration(sum) * tick, nil
}
