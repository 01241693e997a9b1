// Package footprint gives back to the machine what a process at rest does not need: memory of its own that holds
// nothing, and the parts of its program's file that were read in for work that is done. It drops nothing that the
// process could miss: a part of the program that is needed again is there again at the next step into it.
package footprint

import "runtime/debug"

// GiveBack collects garbage and returns what can be returned. It takes milliseconds, of which a process that
// has something to do should keep clear.
func GiveBack() error {
	debug.FreeOSMemory()
	return unmapProgram()
}
