package footprint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// unmapProgram lets go of the pages of the program's own file. The kernel maps many at once around each that is
// touched, and a start or a delivery touches most of a large program; at rest a fraction is in use. They stay in the
// page cache for as long as the machine has no better use for them.
func unmapProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the program's file: %w", err)
	}
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	defer f.Close()
	all, err := clean(f, program)
	if err != nil {
		return fmt.Errorf("read what is mapped: %w", err)
	}
	for _, m := range all {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.begin, m.end-m.begin, unix.MADV_DONTNEED); errno != 0 {
			err = errors.Join(err, fmt.Errorf("let go of %x-%x of the program: %w", m.begin, m.end, errno))
		}
	}
	return err
}

type mapping struct{ begin, end uintptr }

// clean are the mappings of a file that hold nothing but the file's content: not writable, and without one page that
// was written to, such as a loader's relocations, which would be lost.
func clean(smaps io.Reader, file string) (all []mapping, _ error) {
	var now mapping
	candidate := false
	lines := bufio.NewScanner(smaps)
	for lines.Scan() {
		line := lines.Text()
		var perms, offset, device, inode string
		var m mapping
		if n, _ := fmt.Sscanf(line, "%x-%x %s %s %s %s", &m.begin, &m.end, &perms, &offset, &device, &inode); n == 6 {
			_, path, _ := strings.Cut(line, "/")
			now, candidate = m, strings.HasPrefix(perms, "r-") && "/"+path == file
			continue
		}
		// Whatever else is said of a page, one that was written to is "Anonymous".
		if name, value, ok := strings.Cut(line, ":"); ok && name == "Anonymous" && candidate {
			if strings.TrimSpace(value) == "0 kB" {
				all = append(all, now)
			}
			candidate = false
		}
	}
	return all, lines.Err()
}
