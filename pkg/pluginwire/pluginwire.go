// Package pluginwire is how a host reaches a plugin process: the environment that the process is
// started with, the line that it answers on its standard output, mutual TLS with certificates made for
// one process each, a gRPC connection with bounds, and the negotiation of what is spoken over it. It is
// the protocol of hashicorp/go-plugin, gRPC only, so that a plugin may be served by that library in Go
// or by a hundred lines in any other language.
//
// The host's half is here and not go-plugin's client, which waits without a deadline for a process that
// listens and does not answer, reads without a bound, and runs the processes itself. This package starts
// and ends no process and knows no service but PluginService.
package pluginwire

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// What go-plugin calls the magic cookie: a program that does not find it in its environment was not
// started as a plugin, and says so. No secret.
const (
	CookieKey   = "WHEELWRIGHT_PLUGIN"
	CookieValue = "d2hlZWx3cmlnaHQtcGx1Z2lu"
)

// Variables of go-plugin's protocol that a host sets.
const (
	VersionsVariable    = "PLUGIN_PROTOCOL_VERSIONS"
	CertificateVariable = "PLUGIN_CLIENT_CERT"
	SocketsVariable     = "PLUGIN_UNIX_SOCKET_DIR"
)

// coreProtocol is the shape of the handshake line.
const coreProtocol = 1

// Protocols are the protocol versions that are spoken, newest first; N is the package
// wheelwright.plugin.vN.
func Protocols() []int { return []int{1} }

// Contracts are the revisions of the newest protocol's package that are spoken, newest first.
func Contracts() []string { return []string{"1.0"} }

// Environment is what a plugin process has to find, beside what its configuration gives it. Sockets are
// made in the folder sockets.
func Environment(id Identity, sockets string) []string {
	versions := make([]string, 0, len(Protocols()))
	for _, v := range Protocols() {
		versions = append(versions, strconv.Itoa(v))
	}
	return []string{
		CookieKey + "=" + CookieValue,
		VersionsVariable + "=" + strings.Join(versions, ","),
		CertificateVariable + "=" + string(id.PEM),
		SocketsVariable + "=" + sockets,
	}
}

// ErrIncompatible is a plugin that speaks none of what this host does. Another version of one of the
// two is needed; trying again helps nobody.
type ErrIncompatible struct{ Speaks, Wanted string }

func (e ErrIncompatible) Error() string {
	return fmt.Sprintf("it speaks %s, this host %s: install a plugin, or a spoke, of another version", e.Speaks, e.Wanted)
}

// KindName is the word for a kind in files and messages.
func KindName(k pluginv1.Kind) string {
	switch k {
	case pluginv1.Kind_KIND_CONFORMANCE:
		return "conformance"
	case pluginv1.Kind_KIND_CANARY:
		return "canary"
	case pluginv1.Kind_KIND_NOTIFIER:
		return "notifier"
	}
	return "kind " + strconv.Itoa(int(k))
}

// Negotiate is the plugin's side of the choice of a contract: the first of those on offer that is known,
// and false where none is.
func Negotiate(offered, known []string) (string, bool) {
	i := slices.IndexFunc(offered, func(c string) bool { return slices.Contains(known, c) })
	if i < 0 {
		return "", false
	}
	return offered[i], true
}
