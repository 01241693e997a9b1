package render

import "strings"

// What a kernel can confine the child with.
const (
	layerLandlock = "landlock"
	layerSeccomp  = "seccomp"
	unconfined    = "none"
)

func confinement(active []string) string {
	if len(active) == 0 {
		return unconfined
	}
	return strings.Join(active, "+")
}

// Weakness says for people what a render child that is confined with so much (Result.Sandbox, Offered)
// lacks, and what to do; empty where it lacks nothing.
func Weakness(confined string) string {
	landlocked, filtered := strings.Contains(confined, layerLandlock), strings.Contains(confined, layerSeccomp)
	switch {
	case landlocked && filtered:
		return ""
	case filtered:
		return "the kernel has no Landlock, or it is switched off: overlays and releases are rendered with the system call filter alone between them and this machine's files; boot Linux 5.13 or later with landlock among lsm="
	case landlocked:
		return "no system call filter (seccomp) could be had: overlays and releases are rendered with Landlock alone between them and this machine, which leaves out UDP and new processes; allow seccomp to the container, on amd64 or arm64"
	}
	return "the kernel has neither Landlock nor a system call filter (seccomp): overlays and releases are rendered with nothing but checks of our own between them and this machine; run it on Linux 5.13 or later, and allow both to the container"
}
