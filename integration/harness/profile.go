package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"runtime/pprof"
)

// ProfilesVariable names, in the environment of what is measured, the folder for profiles: a figure's is NAME.pprof.
// Without it none is taken.
const ProfilesVariable = "WHEELWRIGHT_PROFILES"

// ProfileFile is where a figure's profile goes; empty: none is wanted.
func ProfileFile(figure string) string {
	dir := os.Getenv(ProfilesVariable)
	if dir == "" {
		return ""
	}
	return filepath.Join(dir, figure+".pprof")
}

// Profiled does once more what a figure measured, where a profile is wanted, for the processor time of this process.
func Profiled(figure string, again func()) error {
	name := ProfileFile(figure)
	if name == "" {
		return nil
	}
	f, err := os.Create(name)
	if err != nil {
		return fmt.Errorf("profile of %s: %w", figure, err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return errors.Join(fmt.Errorf("profile of %s: %w", figure, err), f.Close())
	}
	again()
	pprof.StopCPUProfile()
	return f.Close()
}

// FetchProfile keeps as a figure's profile one that a process serves at addr: what is "heap?gc=1", say.
func FetchProfile(ctx context.Context, addr, what, figure string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/debug/pprof/"+what, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	if err != nil {
		return fmt.Errorf("profile of %s: %w", figure, err)
	}
	return os.WriteFile(ProfileFile(figure), body, 0o644)
}
