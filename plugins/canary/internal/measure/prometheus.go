package measure

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	defaultTimeout = 5 * time.Second
	// maxAnswer is far more than one number needs; a query that answers every series is refused by it.
	maxAnswer = 1 << 20
	// maxGet is how long a query may be to go into a URL, which some proxies bound.
	maxGet = 4 << 10
)

// Config says which Prometheus is asked and how one proves who asks.
type Config struct {
	Address string // http or https; a path before /api/v1 is kept
	// Secret has token, or username and password, and for TLS ca.crt, or tls.crt and tls.key, or both.
	Secret   map[string][]byte
	Insecure bool          // the server's certificate is not checked
	Timeout  time.Duration // of one query; 0: five seconds
}

// Prometheus asks one server. It is safe for several goroutines.
type Prometheus struct {
	endpoint url.URL
	client   *http.Client
	header   http.Header
	timeout  time.Duration
	secrets  []string // never in an error
}

// NewPrometheus checks the configuration; it sends nothing.
func NewPrometheus(c Config) (*Prometheus, error) {
	address, err := url.Parse(c.Address)
	if err != nil || address.Host == "" || address.Scheme != "http" && address.Scheme != "https" {
		return nil, errors.New("the address of Prometheus is not an http or https URL") // which may have a password in it
	}
	p := &Prometheus{endpoint: *address.JoinPath("api", "v1", "query"), header: http.Header{}, timeout: c.Timeout}
	p.endpoint.User, p.endpoint.Fragment = nil, ""
	if p.timeout <= 0 {
		p.timeout = defaultTimeout
	}
	if err := p.authorise(address.User, c.Secret); err != nil {
		return nil, err
	}
	security, err := tlsConfig(c)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy: http.ProxyFromEnvironment, TLSClientConfig: security, ForceAttemptHTTP2: true,
		MaxResponseHeaderBytes: 64 << 10, MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second,
	}
	p.client = &http.Client{Transport: transport, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		if r.URL.Host != via[0].URL.Host || r.URL.Scheme != via[0].URL.Scheme {
			return fmt.Errorf("it redirects to another host, %s://%s: give that address", r.URL.Scheme, r.URL.Host)
		}
		if len(via) > 3 {
			return errors.New("it redirects without end")
		}
		return nil
	}}
	return p, nil
}

// authorise takes a token, else a username with its password, else those in the address.
func (p *Prometheus) authorise(user *url.Userinfo, secret map[string][]byte) error {
	name, password := "", ""
	if user != nil {
		name = user.Username()
		password, _ = user.Password()
	}
	if token := strings.TrimSpace(string(secret["token"])); token != "" {
		p.header.Set("Authorization", "Bearer "+token)
		p.secrets = append(p.secrets, token)
	} else {
		_, named := secret["username"]
		_, given := secret["password"]
		if named != given {
			return errors.New("the secret for Prometheus wants both username and password, or token")
		}
		if named {
			name, password = string(secret["username"]), string(secret["password"])
		}
		if name != "" || password != "" {
			r := http.Request{Header: p.header}
			r.SetBasicAuth(name, password)
			p.secrets = append(p.secrets, strings.TrimPrefix(p.header.Get("Authorization"), "Basic "))
		}
	}
	if password != "" {
		p.secrets = append(p.secrets, password, url.QueryEscape(password), url.PathEscape(password))
	}
	for _, values := range p.endpoint.Query() {
		p.secrets = append(p.secrets, values...) // some gateways take a key there
	}
	return nil
}

func tlsConfig(c Config) (*tls.Config, error) {
	out := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: c.Insecure}
	if ca := c.Secret["ca.crt"]; len(ca) > 0 {
		out.RootCAs = x509.NewCertPool()
		if !out.RootCAs.AppendCertsFromPEM(ca) {
			return nil, errors.New("ca.crt of the secret for Prometheus has no certificate in PEM")
		}
	}
	if len(c.Secret["tls.crt"])+len(c.Secret["tls.key"]) > 0 {
		pair, err := tls.X509KeyPair(c.Secret["tls.crt"], c.Secret["tls.key"])
		if err != nil {
			return nil, fmt.Errorf("tls.crt and tls.key of the secret for Prometheus: %w", err)
		}
		out.Certificates = []tls.Certificate{pair}
	}
	return out, nil
}

// Close gives connections back.
func (p *Prometheus) Close() { p.client.CloseIdleConnections() }

// Samples asks everything that q has, as of one moment. It never fails: what went wrong is the
// Problem of what it answers.
func (p *Prometheus) Samples(ctx context.Context, q Query, at time.Time) Samples {
	var value, sample, newest answer
	var failed [3]error
	var wait sync.WaitGroup
	for i, part := range []struct {
		query string
		to    *answer
	}{{q.Value, &value}, {q.Sample, &sample}, {q.Newest, &newest}} {
		if part.query != "" {
			wait.Go(func() { *part.to, failed[i] = p.ask(ctx, part.query, at) })
		}
	}
	wait.Wait()
	if q.Value == "" {
		return Samples{Problem: "no data: there is no query", Cause: NoData}
	}
	for i, err := range failed {
		if err != nil {
			return Samples{Problem: [...]string{"", "the number of requests: ", "the newest sample: "}[i] + err.Error(), Cause: causeOf(err)}
		}
	}
	s := Samples{Shape: value.shape, Values: value.values}
	if q.Sample != "" {
		switch {
		case sample.shape != "" || len(sample.values) > 1:
			return Samples{Problem: "the query for the number of requests wants to return one number", Cause: WrongShape}
		case len(sample.values) == 0:
			sample.values = []float64{0} // no series: nobody has counted one
		}
		s.Counted = &sample.values[0]
	}
	if q.Newest != "" {
		switch {
		case newest.shape != "" || len(newest.values) > 1:
			return Samples{Problem: "the query for the newest sample wants to return one number", Cause: WrongShape}
		case len(newest.values) == 1 && finite(newest.values[0]) && newest.values[0] > 0 && newest.values[0] < 1e11:
			s.Newest = time.UnixMilli(int64(newest.values[0] * 1000))
		case len(s.Values) > 0 && (s.Counted == nil || *s.Counted > 0):
			return Samples{Problem: "stale: there is no newest sample", Cause: Stale}
		}
	}
	return s
}

// ask sends one instant query.
func (p *Prometheus) ask(ctx context.Context, query string, at time.Time) (answer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, p.timeout, fmt.Errorf("no answer within %s", p.timeout))
	defer cancel()
	r, err := p.request(ctx, query, at)
	if err != nil {
		return answer{}, trouble{Unreachable, "ask Prometheus: " + p.redact(err.Error())}
	}
	response, err := p.client.Do(r)
	if err != nil {
		return answer{}, p.unreachable(ctx, err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return answer{}, p.unreachable(ctx, err)
	case len(body) > maxAnswer:
		return answer{}, trouble{WrongShape, fmt.Sprintf("Prometheus answers more than %d KiB, wants one number", maxAnswer>>10)}
	}
	a, err := decode(response.StatusCode, body)
	if t, ok := errors.AsType[trouble](err); ok {
		t.text = oneLine(p.redact(t.text))
		return answer{}, t
	}
	return a, err
}

func (p *Prometheus) request(ctx context.Context, query string, at time.Time) (*http.Request, error) {
	form := url.Values{
		"query":   {query},
		"time":    {strconv.FormatFloat(float64(at.UnixMilli())/1000, 'f', 3, 64)},
		"timeout": {p.timeout.String()}, // so that the server gives up too
	}
	target := p.endpoint
	var r *http.Request
	var err error
	if len(query) > maxGet {
		r, err = http.NewRequestWithContext(ctx, http.MethodPost, target.String(), strings.NewReader(form.Encode()))
	} else {
		own := target.Query()
		for key, values := range form {
			own[key] = values
		}
		target.RawQuery = own.Encode()
		r, err = http.NewRequestWithContext(ctx, http.MethodGet, target.String(), nil)
	}
	if err != nil {
		return nil, err
	}
	r.Header = p.header.Clone()
	r.Header.Set("Accept", "application/json")
	if r.Method == http.MethodPost {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	return r, nil
}

// unreachable leaves the URL out: it has the query in it, and perhaps a key.
func (p *Prometheus) unreachable(ctx context.Context, err error) error {
	switch cause := context.Cause(ctx); cause {
	case nil:
	case context.DeadlineExceeded: // the caller's, before the query's own
		err = errors.New("no answer before the deadline")
	default:
		err = cause
	}
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	return trouble{Unreachable, oneLine(p.redact("Prometheus unreachable: " + err.Error() + " (" + p.endpoint.Host + ")"))}
}

func (p *Prometheus) redact(s string) string {
	for _, secret := range p.secrets {
		if secret != "" {
			s = strings.ReplaceAll(s, secret, "***")
		}
	}
	return s
}

// trouble is why there is no answer.
type trouble struct {
	cause Cause
	text  string
}

func (t trouble) Error() string { return t.text }

func causeOf(err error) Cause {
	if t, ok := errors.AsType[trouble](err); ok {
		return t.cause
	}
	return Unreachable
}
