package spokes

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/gob"
	"fmt"
	"os"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/transport"
	enrollv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/enroll/v1"
	fleetv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/fleet/v1"
)

// parallel enrolments under way: the hub stores them in groups.
const parallel = 64

// Enrolment is of clusters that a hub does not know yet.
type Enrolment struct {
	Context  string // the operator's context file
	File     string // takes the identities
	Clusters []Cluster
}

// Cluster is one to be enrolled.
type Cluster struct {
	Name   string // "provider/name"
	Labels map[string]string
}

// Roster is what Enrol writes: the identities, and whom they trust.
type Roster struct {
	CA     []byte // PEM
	Spokes []Identity
}

// Identity is one spoke's, as the hub issued it.
type Identity struct {
	Name        string
	Certificate []byte // DER; all that a spoke shows: the hub has its authorities itself
	Key         []byte // PKCS#8
}

// Load reads what Enrol wrote.
func Load(file string) (r Roster, err error) {
	f, err := os.Open(file)
	if err != nil {
		return r, fmt.Errorf("read the identities: %w", err)
	}
	defer f.Close()
	if err := gob.NewDecoder(f).Decode(&r); err != nil {
		return r, fmt.Errorf("read the identities in %s: %w", file, err)
	}
	return r, nil
}

func (r Roster) save(file string) error {
	f, err := os.OpenFile(file, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the identities: %w", err)
	}
	defer f.Close()
	if err := gob.NewEncoder(f).Encode(r); err != nil {
		return fmt.Errorf("write the identities: %w", err)
	}
	return f.Close()
}

// Enrol has every cluster invited by the operator and joined by its spoke, as people and spokes do it.
func (s *Service) Enrol(e Enrolment, _ *None) error {
	conn, ca, err := operator(e.Context)
	if err != nil {
		return err
	}
	defer conn.Close()
	roster := Roster{CA: ca, Spokes: make([]Identity, len(e.Clusters))}
	group, ctx := errgroup.WithContext(s.ctx)
	group.SetLimit(parallel)
	for n, c := range e.Clusters {
		group.Go(func() (err error) {
			if roster.Spokes[n], err = enrol(ctx, conn, c); err != nil {
				return fmt.Errorf("enrol %s: %w", c.Name, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return roster.save(e.File)
}

// operator dials the hub of a context file.
func operator(file string) (conn *grpc.ClientConn, ca []byte, err error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, nil, err
	}
	var c struct{ Address, CA, Certificate, Key string }
	if err := yaml.Unmarshal(data, &c); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", file, err)
	}
	pair, err := tls.X509KeyPair([]byte(c.Certificate), []byte(c.Key))
	if err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", file, err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM([]byte(c.CA))
	conn, err = transport.Dial(c.Address, &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots, Certificates: []tls.Certificate{pair}})
	return conn, []byte(c.CA), err
}

// enrol invites the spoke as the operator, and redeems the token as the spoke.
func enrol(ctx context.Context, conn *grpc.ClientConn, c Cluster) (Identity, error) {
	invited, err := fleetv1.NewFleetServiceClient(conn).InviteCluster(ctx, &fleetv1.InviteClusterRequest{Name: c.Name, AcceptAutomatically: true, Labels: c.Labels})
	if err != nil {
		return Identity{}, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Identity{}, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: c.Name}}, key)
	if err != nil {
		return Identity{}, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return Identity{}, err
	}
	// The operator's context is how the simulated spoke knows the hub; the token's pin is the real one's way.
	r, err := enrollv1.NewEnrollServiceClient(conn).Enroll(ctx, &enrollv1.EnrollRequest{Token: invited.GetToken(), Csr: csr})
	if err != nil {
		return Identity{}, err
	}
	return Identity{Name: c.Name, Certificate: r.GetCertificate(), Key: der}, nil
}
