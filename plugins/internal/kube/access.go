package kube

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"sigs.k8s.io/yaml"
)

// access is what one reading of a kubeconfig came to.
type access struct {
	server    string // without a slash at its end
	namespace string
	token     string
	http      *http.Client
	secrets   []string
}

// kubeconfig is the part of the format that is read. Keys of others are left alone, but for those that
// would run a program.
type kubeconfig struct {
	CurrentContext string `json:"current-context"`
	Contexts       []struct {
		Name    string `json:"name"`
		Context struct {
			Cluster   string `json:"cluster"`
			User      string `json:"user"`
			Namespace string `json:"namespace"`
		} `json:"context"`
	} `json:"contexts"`
	Clusters []struct {
		Name    string  `json:"name"`
		Cluster cluster `json:"cluster"`
	} `json:"clusters"`
	Users []struct {
		Name string `json:"name"`
		User user   `json:"user"`
	} `json:"users"`
}

type cluster struct {
	Server     string `json:"server"`
	CAData     string `json:"certificate-authority-data"`
	CAFile     string `json:"certificate-authority"`
	ServerName string `json:"tls-server-name"`
	Insecure   bool   `json:"insecure-skip-tls-verify"`
}

type user struct {
	Token     string `json:"token"`
	TokenFile string `json:"tokenFile"`
	CertData  string `json:"client-certificate-data"`
	CertFile  string `json:"client-certificate"`
	KeyData   string `json:"client-key-data"`
	KeyFile   string `json:"client-key"`
	Exec      any    `json:"exec"`
	Provider  any    `json:"auth-provider"`
}

func readAccess(path string) (*access, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	a, err := parseAccess(data, filepath.Dir(path))
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig %s: %w", path, err)
	}
	return a, nil
}

// parseAccess resolves files relative to folder, as kubectl does.
func parseAccess(data []byte, folder string) (*access, error) {
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		return nil, errors.New("it is not YAML of a kubeconfig") // the reader's own words may quote a token
	}
	where, who, namespace, err := k.chosen()
	if err != nil {
		return nil, err
	}
	server, err := url.Parse(where.Server)
	if err != nil || server.Host == "" || server.Scheme != "https" && server.Scheme != "http" {
		return nil, errors.New("the cluster's server is no http or https URL")
	}
	if who.Exec != nil || who.Provider != nil {
		return nil, errors.New("its user is known by a program, which a plugin does not run: give a token")
	}
	a := &access{server: strings.TrimSuffix(where.Server, "/"), namespace: namespace}
	files := reader{folder: folder}
	a.token = who.Token
	if a.token == "" && who.TokenFile != "" {
		a.token = strings.TrimSpace(string(files.read(who.TokenFile)))
	}
	if a.token != "" {
		a.secrets = append(a.secrets, a.token)
	}
	security := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: where.ServerName, InsecureSkipVerify: where.Insecure}
	if ca := files.bytes(where.CAData, where.CAFile); len(ca) > 0 {
		security.RootCAs = x509.NewCertPool()
		if !security.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("the cluster's authority is no certificate in PEM")
		}
	}
	cert, key := files.bytes(who.CertData, who.CertFile), files.bytes(who.KeyData, who.KeyFile)
	if files.err != nil {
		return nil, files.err
	}
	if len(cert)+len(key) > 0 {
		pair, err := tls.X509KeyPair(cert, key)
		if err != nil {
			return nil, fmt.Errorf("the user's certificate and key: %w", err)
		}
		security.Certificates = []tls.Certificate{pair}
	}
	a.http = &http.Client{
		Transport: &http.Transport{Proxy: http.ProxyFromEnvironment, TLSClientConfig: security, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second, IdleConnTimeout: 30 * time.Second, MaxIdleConns: 4, MaxResponseHeaderBytes: 64 << 10},
		// A redirect would take the token along.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return a, nil
}

func (k kubeconfig) chosen() (where cluster, who user, namespace string, err error) {
	missing := func(what, name string) error { return fmt.Errorf("it has no %s %q", what, name) }
	found := false
	var clusterName, userName string
	for _, c := range k.Contexts {
		if c.Name == k.CurrentContext {
			clusterName, userName, namespace, found = c.Context.Cluster, c.Context.User, c.Context.Namespace, true
		}
	}
	if !found {
		return where, who, "", missing("context", k.CurrentContext)
	}
	found = false
	for _, c := range k.Clusters {
		if c.Name == clusterName {
			where, found = c.Cluster, true
		}
	}
	if !found {
		return where, who, "", missing("cluster", clusterName)
	}
	for _, u := range k.Users {
		if u.Name == userName {
			return where, u.User, namespace, nil
		}
	}
	return where, who, "", missing("user", userName)
}

func (a *access) authorise(h http.Header) {
	if a.token != "" {
		h.Set("Authorization", "Bearer "+a.token)
	}
}

// reader keeps its first error.
type reader struct {
	folder string
	err    error
}

func (r *reader) read(path string) []byte {
	if !filepath.IsAbs(path) {
		path = filepath.Join(r.folder, path)
	}
	data, err := os.ReadFile(path)
	if err != nil && r.err == nil {
		r.err = err
	}
	return data
}

// bytes are those in the kubeconfig itself, else the file's.
func (r *reader) bytes(inline, path string) []byte {
	switch {
	case inline != "":
		data, err := base64.StdEncoding.DecodeString(inline)
		if err != nil && r.err == nil {
			r.err = errors.New("what is given as data is no base64")
		}
		return data
	case path != "":
		return r.read(path)
	}
	return nil
}
