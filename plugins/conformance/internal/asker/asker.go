// Package asker carries out a probe: it asks one port of a Service over HTTP or gRPC and judges what it
// answers. It follows no redirect, keeps no cookie, asks no reflection, and knows nothing of releases:
// where a probe is sent is the caller's to say.
//
// A try ends in one of three ways: the answer is as it should be; there is an answer and it is not, or
// somebody was there and gave none; nobody could be reached. The last is no evidence against a release.
package asker

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	"github.com/wheelwright-dev/wheelwright/plugins/internal/kube"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Asker asks. It is safe for several goroutines.
type Asker struct {
	Dial     kube.DialFunc     // nil: the net package's
	Proxy    http.RoundTripper // where set, HTTP goes through it: the API server's way to a Service
	Redactor excerpt.Redactor
}

// Target is where a probe goes.
type Target struct {
	Host string // of the Service in the cluster, such as backend-canary.shop.svc
	Port int
	// Name is how users call it, in the Host header and to its certificate: a candidate is what will be
	// called so. Empty: Host.
	Name string
}

func (t Target) name() string { return cmp.Or(t.Name, t.Host) }

// authority is the name with its port, where that is not the scheme's own, as clients write it.
func (t Target) authority(secure bool) string {
	if secure && t.Port == 443 || !secure && t.Port == 80 {
		return t.name()
	}
	return net.JoinHostPort(t.name(), strconv.Itoa(t.Port))
}

func (t Target) String() string { return net.JoinHostPort(t.Host, strconv.Itoa(t.Port)) }

// outcome of one try.
type outcome struct {
	passed, reached bool
	message         string
}

func wrong(format string, args ...any) outcome {
	return outcome{reached: true, message: fmt.Sprintf(format, args...)}
}

// Ask tries until one try passes or all are used up. The verdict's sample counts the tries that reached
// somebody.
func (a Asker) Ask(ctx context.Context, p probe.Probe, at Target) *pluginv1.Verdict {
	var last, failed outcome
	sample := uint64(0)
	for n := 0; n <= p.Retries; n++ {
		if n > 0 && kube.Pause(ctx, p.Interval) != nil {
			break
		}
		last = a.try(ctx, p, at)
		if last.reached {
			sample++
		}
		if last.passed {
			return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS, Sample: sample}
		}
		if last.reached {
			failed = last
		}
		if ctx.Err() != nil {
			break
		}
	}
	if failed.message != "" {
		return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_FAIL, Sample: sample, Reason: a.clean(failed.message)}
	}
	return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_INCONCLUSIVE, Reason: a.clean(last.message)}
}

func (a Asker) clean(s string) string { return a.Redactor.Line(s, 400) }

func (a Asker) try(parent context.Context, p probe.Probe, at Target) outcome {
	ctx, cancel := context.WithTimeout(parent, p.Timeout)
	defer cancel()
	var connected atomic.Bool
	if p.HTTP == nil || a.Proxy == nil { // a connection to the API server is none to the Service
		ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{ConnectDone: func(_, _ string, err error) {
			if err == nil {
				connected.Store(true)
			}
		}})
	}
	begin := time.Now()
	var o outcome
	var err error
	if p.HTTP != nil {
		o, err = a.askHTTP(ctx, p.HTTP, at)
	} else {
		o, err = a.askGRPC(ctx, p.GRPC, at)
	}
	took := time.Since(begin)
	switch {
	case err == nil && o.passed && p.Latency > 0 && took > p.Latency:
		return wrong("%s answers after %s, later than %s", at, took.Round(time.Millisecond), p.Latency)
	case err == nil:
		return o
	case parent.Err() != nil:
		return outcome{message: fmt.Sprintf("%s: no answer before the deadline", at)} // cut short: no evidence
	case ctx.Err() != nil && connected.Load():
		return wrong("%s gives no answer within %s", at, p.Timeout)
	case ctx.Err() != nil:
		return outcome{message: fmt.Sprintf("%s: no connection within %s", at, p.Timeout)}
	}
	var outer *url.Error
	if errors.As(err, &outer) {
		err = outer.Err
	}
	var distrust *tls.CertificateVerificationError
	if errors.As(err, &distrust) {
		return wrong("%s: %v", at, distrust)
	}
	return outcome{reached: connected.Load(), message: fmt.Sprintf("%s: %v", at, err)}
}

// transport for one try: nothing is kept, so that each try meets whichever pod is there.
func (a Asker) transport(security *tls.Config, protocols *http.Protocols) *http.Transport {
	return &http.Transport{DialContext: a.Dial, TLSClientConfig: security, Protocols: protocols, DisableKeepAlives: protocols == nil, MaxResponseHeaderBytes: 64 << 10}
}
