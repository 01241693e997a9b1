package harness

import (
	"crypto/x509/pkix"
	"fmt"
	"strings"
)

// What a component needs that joins a cluster of the harness from outside, as a real node does. Clusters that the
// harness did not start have nothing of it.

// ServerName is in the certificate of the cluster's API server, for clients that reach it by another address.
const ServerName = "kubernetes.default.svc"

// AuthorityFile is the certificate that clients and servers of the cluster are checked against.
func (c *Cluster) AuthorityFile() string { return c.file("ca.crt") }

// Address is where the API server listens.
func (c *Cluster) Address() string { return strings.TrimPrefix(c.config.Host, "https://") }

// ServerCertificate issues a certificate for hosts and returns its files.
func (c *Cluster) ServerCertificate(name string, hosts ...string) (certificate, key string, err error) {
	if c.authority == nil {
		return "", "", fmt.Errorf("issue a certificate for %s: cluster %s is not the harness's: unset WHEELWRIGHT_KUBECONFIGS", name, c.Name)
	}
	if err := c.authority.issue(name, pkix.Name{CommonName: name}, hosts...); err != nil {
		return "", "", fmt.Errorf("issue a certificate for %s: %w", name, err)
	}
	return c.file(name + ".crt"), c.file(name + ".key"), nil
}

// KubeconfigFor writes a kubeconfig for a user in groups, who reaches the API server at address (empty: where it
// listens), and returns its path.
func (c *Cluster) KubeconfigFor(file, address, user string, groups ...string) (string, error) {
	if c.authority == nil {
		return "", fmt.Errorf("write a kubeconfig for %s: cluster %s is not the harness's: unset WHEELWRIGHT_KUBECONFIGS", user, c.Name)
	}
	if address == "" {
		address = c.Address()
	}
	if err := c.authority.issue(file, pkix.Name{CommonName: user, Organization: groups}); err != nil {
		return "", fmt.Errorf("write a kubeconfig for %s: %w", user, err)
	}
	path := c.file(file + ".kubeconfig")
	return path, c.authority.writeKubeconfig(path, c.Name, "https://"+address, ServerName, file)
}
