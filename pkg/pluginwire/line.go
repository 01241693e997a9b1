package pluginwire

import (
	"bufio"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
)

// maxLine bounds the handshake line; one with a certificate has about 900 bytes.
const maxLine = 16 << 10

// Line is what a plugin says first: where it listens, what it speaks, and the certificate that it has.
type Line struct {
	Protocol    int
	Network     string // "unix" or "tcp"
	Address     string
	Certificate *x509.Certificate
}

// ReadLine reads the handshake line and leaves what follows it in r.
func ReadLine(r *bufio.Reader) (Line, error) {
	var text []byte
	for {
		b, err := r.ReadByte()
		switch {
		case errors.Is(err, io.EOF) && len(text) == 0:
			return Line{}, errors.New("it ended its standard output without a handshake line")
		case err != nil && !errors.Is(err, io.EOF):
			return Line{}, fmt.Errorf("reading its handshake line: %w", err)
		case err != nil, b == '\n':
			return ParseLine(string(text))
		case len(text) == maxLine:
			return Line{}, fmt.Errorf("its handshake line has more than %d bytes", maxLine)
		}
		text = append(text, b)
	}
}

// ParseLine reads CORE|PROTOCOL|NETWORK|ADDRESS|grpc|CERTIFICATE, the certificate as DER in base64
// without padding. Further fields are for others.
func ParseLine(text string) (Line, error) {
	text = strings.TrimSpace(text)
	parts := strings.Split(text, "|")
	if len(parts) < 5 {
		return Line{}, fmt.Errorf("it said %q where a handshake line belongs (CORE|PROTOCOL|NETWORK|ADDRESS|grpc|CERTIFICATE): is it a plugin?", clip(text, 120))
	}
	if core, err := strconv.Atoi(parts[0]); err != nil || core != coreProtocol {
		return Line{}, ErrIncompatible{Speaks: "core protocol " + clip(parts[0], 20), Wanted: strconv.Itoa(coreProtocol)}
	}
	protocol, err := strconv.Atoi(parts[1])
	if err != nil || !slices.Contains(Protocols(), protocol) {
		return Line{}, ErrIncompatible{Speaks: "plugin protocol " + clip(parts[1], 20), Wanted: strings.Trim(fmt.Sprint(Protocols()), "[]")}
	}
	if parts[4] != "grpc" {
		return Line{}, ErrIncompatible{Speaks: clip(parts[4], 20), Wanted: "grpc"}
	}
	line := Line{Protocol: protocol, Network: parts[2], Address: parts[3]}
	if err := line.checkAddress(); err != nil {
		return Line{}, err
	}
	if len(parts) < 6 || parts[5] == "" {
		return Line{}, errors.New("its handshake line has no certificate: mutual TLS is not optional (AutoMTLS in go-plugin)")
	}
	der, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(parts[5], "="))
	if err != nil {
		return Line{}, fmt.Errorf("the certificate in its handshake line: %w", err)
	}
	if line.Certificate, err = x509.ParseCertificate(der); err != nil {
		return Line{}, fmt.Errorf("the certificate in its handshake line: %w", err)
	}
	return line, nil
}

// checkAddress: a plugin listens on this machine, for this host.
func (l Line) checkAddress() error {
	switch l.Network {
	case "unix":
		if l.Address == "" {
			return errors.New("its handshake line names no socket")
		}
		return nil
	case "tcp":
		host, _, err := net.SplitHostPort(l.Address)
		if ip := net.ParseIP(host); err != nil || ip == nil || !ip.IsLoopback() {
			return fmt.Errorf("it listens on %q: want a loopback address with a port", clip(l.Address, 80))
		}
		return nil
	}
	return fmt.Errorf("it listens on a network %q: want unix or tcp", clip(l.Network, 20))
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}
