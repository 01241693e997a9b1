// Package clientcontext reads and writes the file that says which hub a command speaks to, and as
// whom: DIR/admin.yaml of a hub's data folder, or a copy of it elsewhere. It issues no identity.
package clientcontext

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	"github.com/wheelwright-dev/wheelwright/pkg/wholefile"
)

// Context is one hub and one operator's identity at it: a certificate with its key, or where a token comes from.
type Context struct {
	Address      string   // HOST:PORT
	CA           string   // PEM: the authorities that the hub's certificate must come from
	Certificate  string   // PEM
	Key          string   // PEM
	TokenFile    string   // that a token is in, or
	TokenCommand []string // a program, with its arguments, that prints one
}

// file is the shape on disk.
type file struct {
	Version      int      `json:"version"`
	Address      string   `json:"address"`
	CA           string   `json:"ca"`
	Certificate  string   `json:"certificate,omitempty"`
	Key          string   `json:"key,omitempty"`
	TokenFile    string   `json:"tokenFile,omitempty"`
	TokenCommand []string `json:"tokenCommand,omitempty"`
}

const version = 1

// maxAnswer bounds an answer of the hub in bytes. It is an operator's own hub, and a fleet's history of
// releases and events outgrows what a spoke has to take in.
const maxAnswer = 256 << 20

// Load reads a context file. A missing file is reported as fs.ErrNotExist.
func Load(path string) (Context, error) {
	data, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, fmt.Errorf("context file %s does not exist (%w); `hub serve --data DIR` writes DIR/admin.yaml", path, fs.ErrNotExist)
	}
	if err != nil {
		return Context{}, fmt.Errorf("read context file: %w", err)
	}
	var f file
	if err := yaml.UnmarshalStrict(data, &f); err != nil {
		return Context{}, fmt.Errorf("context file %s: %w; copy DIR/admin.yaml of the hub's data folder again", path, err)
	}
	if f.Version != version {
		return Context{}, fmt.Errorf("context file %s: version %d, this program reads version %d", path, f.Version, version)
	}
	c := Context{Address: f.Address, CA: f.CA, Certificate: f.Certificate, Key: f.Key, TokenFile: f.TokenFile, TokenCommand: f.TokenCommand}
	if c.TokenFile != "" && !filepath.IsAbs(c.TokenFile) {
		c.TokenFile = filepath.Join(filepath.Dir(path), c.TokenFile)
	}
	if _, err := c.TLS(); err != nil {
		return Context{}, fmt.Errorf("context file %s: %w; copy DIR/admin.yaml of the hub's data folder again", path, err)
	}
	return c, nil
}

// Save writes a context file for its owner alone, whole or not at all.
func Save(path string, c Context) error {
	data, err := yaml.Marshal(file{Version: version, Address: c.Address, CA: c.CA, Certificate: c.Certificate, Key: c.Key, TokenFile: c.TokenFile, TokenCommand: c.TokenCommand})
	if err != nil {
		return fmt.Errorf("encode context: %w", err)
	}
	if err := wholefile.Write(path, ".context-*", data); err != nil {
		return fmt.Errorf("write context file: %w", err)
	}
	return nil
}

// TLS is the client side of a connection as this operator.
func (c Context) TLS() (*tls.Config, error) {
	if c.Address == "" {
		return nil, errors.New("no address")
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM([]byte(c.CA)) {
		return nil, errors.New("ca holds no certificate in PEM")
	}
	if c.byToken() {
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool}, c.tokenOnly()
	}
	pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return nil, fmt.Errorf("certificate and key: %w", err)
	}
	return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: pool, Certificates: []tls.Certificate{pair}}, nil
}

// Pins are those of CA, as the hub tells its own.
func (c Context) Pins() (pins []string) {
	for block, rest := pem.Decode([]byte(c.CA)); block != nil; block, rest = pem.Decode(rest) {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			sum := sha256.Sum256(cert.RawSubjectPublicKeyInfo)
			pins = append(pins, hex.EncodeToString(sum[:]))
		}
	}
	return pins
}

// Dial prepares a connection to the hub; the first call opens it. told, where it is not nil, gets the pins of what
// the hub's certificate may come from, the newest last, with each answer that has them.
func Dial(c Context, told func(pins []string)) (*grpc.ClientConn, error) {
	cfg, err := c.TLS()
	if err != nil {
		return nil, fmt.Errorf("context: %w", err)
	}
	options := []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer))}
	if c.byToken() {
		options = append(options, grpc.WithPerRPCCredentials(&bearer{context: c}))
	}
	if told != nil {
		options = append(options, grpc.WithUnaryInterceptor(func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, call grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			var header metadata.MD
			err := call(ctx, method, req, reply, cc, append(opts, grpc.Header(&header))...)
			if pins := header.Get(transport.AuthoritiesHeader); len(pins) == 1 {
				told(strings.Split(pins[0], ","))
			}
			return err
		}))
	}
	return transport.Dial(c.Address, cfg, options...)
}
