// Package webhook calls the webhooks of Flagger's Canary objects: the same types, payload, timeouts and
// retries, so that what answers Flagger, its load tester above all, answers here too. It judges an answer
// by the webhook's type, and decides nothing else: when a type is due is the caller's to know.
//
// Where it differs from Flagger: an answer that is no answer (nobody there, too late, sent elsewhere, too
// long) is not taken for a refusal unless Policy says so; gates open at 200 alone, where Flagger takes
// 201 and 202 too; a redirect is followed within one host only.
package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/internal/excerpt"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Type is when a webhook is called and what its answer means.
type Type string

const (
	ConfirmRollout         Type = "confirm-rollout"          // gate: may the delivery begin?
	PreRollout             Type = "pre-rollout"              // test, before live traffic
	Rollout                Type = "rollout"                  // test, with every measurement; makes load
	ConfirmTrafficIncrease Type = "confirm-traffic-increase" // gate
	ConfirmPromotion       Type = "confirm-promotion"        // gate
	PostRollout            Type = "post-rollout"             // test, after promotion
	Rollback               Type = "rollback"                 // opens the way back at 200
	Event                  Type = "event"                    // is told what happens
)

// Types are all of them, in the order of a delivery.
func Types() []Type {
	return []Type{ConfirmRollout, PreRollout, Rollout, ConfirmTrafficIncrease, ConfirmPromotion, PostRollout, Rollback, Event}
}

// IsGate tells the types whose answer keeps something waiting.
func (t Type) IsGate() bool {
	return t == ConfirmRollout || t == ConfirmTrafficIncrease || t == ConfirmPromotion
}

// Phases as Flagger names them, for payloads.
const (
	Waiting          = "Waiting"
	Progressing      = "Progressing"
	WaitingPromotion = "WaitingPromotion"
	Succeeded        = "Succeeded"
	Failed           = "Failed"
)

// Phase is the one in which Flagger calls a type.
func (t Type) Phase() string {
	switch t {
	case ConfirmRollout:
		return Waiting
	case ConfirmPromotion:
		return WaitingPromotion
	case PostRollout:
		return Succeeded
	}
	return Progressing
}

const (
	DefaultTimeout = 10 * time.Second // of one attempt
	eventTimeout   = 5 * time.Second  // Flagger's, whatever the webhook says
	maxAnswer      = 1 << 20
	maxHeader      = 64 << 10
	maxHops        = 3
	maxPause       = 30 * time.Second
)

// Hook is one webhook of a Canary.
type Hook struct {
	Name     string
	Type     Type
	URL      string
	Timeout  time.Duration // of one attempt; 0: DefaultTimeout
	Retries  int           // further attempts after no answer, 429 and 5xx
	Metadata map[string]string
}

// Payload is the body of a call.
type Payload struct {
	Name      string            `json:"name"` // of the Canary
	Namespace string            `json:"namespace"`
	Phase     string            `json:"phase"`
	Checksum  string            `json:"checksum"`
	Metadata  map[string]string `json:"metadata,omitempty"`
}

// Policy says what no answer to a test means.
type Policy string

const (
	Hold Policy = "hold" // inconclusive
	Fail Policy = "fail" // what Flagger does
)

// Config of a Client.
type Config struct {
	NoAnswer  Policy            // empty: Hold
	Pause     time.Duration     // before the first retry, twice as long before each further one; 0: a second
	Transport http.RoundTripper // nil: a real one
	Redactor  excerpt.Redactor
}

// Client is safe for several goroutines.
type Client struct {
	config Config
	client *http.Client
}

// New makes a client.
func New(c Config) *Client {
	if c.Pause <= 0 {
		c.Pause = time.Second
	}
	if c.Transport == nil {
		c.Transport = Transport(nil)
	}
	return &Client{config: c, client: &http.Client{Transport: c.Transport, CheckRedirect: sameHost}}
}

// Transport is bounded in what it reads of an answer's head; dial may be nil.
func Transport(dial func(ctx context.Context, network, address string) (net.Conn, error)) *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, DialContext: dial, ForceAttemptHTTP2: true, MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns: 4, IdleConnTimeout: 30 * time.Second, TLSHandshakeTimeout: 10 * time.Second}
}

// refusal is why an answer is none, where asking again changes nothing.
type refusal string

func (r refusal) Error() string { return string(r) }

// sameHost lets a server move within itself and keeps the payload whole.
func sameHost(r *http.Request, via []*http.Request) error {
	first := via[0]
	switch {
	case r.URL.Host != first.URL.Host || r.URL.Scheme != first.URL.Scheme:
		return refusal(fmt.Sprintf("%s redirects to another host, %s://%s: give the address that it moved to", first.URL.Host, r.URL.Scheme, r.URL.Host))
	case r.Method != first.Method:
		return refusal(first.URL.Host + " redirects in a way that loses the payload: give the address that it moved to")
	case len(via) > maxHops:
		return refusal(first.URL.Host + " redirects without end")
	}
	return nil
}

// Answer is what a webhook said.
type Answer struct {
	Status int
	Body   []byte // at most 1 MiB
}

// CheckURL says what is wrong with a webhook's address.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return refusal("its url is no http or https URL: correct it in the Canary")
	}
	return nil
}

// Call calls a webhook of a Canary and judges what it answers. The payload's Metadata is the webhook's.
//
//	test:     200 to 202 pass, any other answer fails
//	gate:     200 passes, all else holds: inconclusive
//	rollback: 200 fails the candidate, any other answer passes it
func (c *Client) Call(ctx context.Context, h Hook, p Payload) *pluginv1.Verdict {
	p.Metadata = h.Metadata
	answer, err := c.Send(ctx, h, p)
	if err != nil {
		return c.unanswered(ctx, h, err)
	}
	said := strings.TrimSpace(fmt.Sprintf("%s answers %d %s", hostOf(h.URL), answer.Status, c.config.Redactor.Line(string(answer.Body), 200)))
	open := answer.Status == http.StatusOK
	switch {
	case h.Type.IsGate() && !open:
		return c.verdict(pluginv1.Outcome_OUTCOME_INCONCLUSIVE, 1, fmt.Sprintf("waits for the gate %s: %s", h.Name, said))
	case h.Type == Rollback && open:
		return c.verdict(pluginv1.Outcome_OUTCOME_FAIL, 1, "the way back is asked for: "+said)
	case !h.Type.IsGate() && h.Type != Rollback && (answer.Status < 200 || answer.Status > http.StatusAccepted):
		return c.verdict(pluginv1.Outcome_OUTCOME_FAIL, 1, said)
	}
	return &pluginv1.Verdict{Outcome: pluginv1.Outcome_OUTCOME_PASS, Sample: 1}
}

// unanswered: for a test, what will not be an answer later either fails. A call that ends first is no
// evidence of anything.
func (c *Client) unanswered(ctx context.Context, h Hook, err error) *pluginv1.Verdict {
	_, final := errors.AsType[refusal](err)
	test := !h.Type.IsGate() && h.Type != Rollback
	if test && (final || c.config.NoAnswer == Fail && ctx.Err() == nil) {
		return c.verdict(pluginv1.Outcome_OUTCOME_FAIL, 0, err.Error())
	}
	return c.verdict(pluginv1.Outcome_OUTCOME_INCONCLUSIVE, 0, err.Error())
}

func (c *Client) verdict(o pluginv1.Outcome, sample uint64, reason string) *pluginv1.Verdict {
	return &pluginv1.Verdict{Outcome: o, Sample: sample, Reason: c.config.Redactor.Line(reason, 400)}
}

// Announce tells a webhook of type event what happens; kind is "Normal" or "Warning". Nothing waits for it.
func (c *Client) Announce(ctx context.Context, h Hook, p Payload, kind, message string, at time.Time) error {
	p.Metadata = map[string]string{"eventMessage": message, "eventType": kind, "timestamp": strconv.FormatInt(at.UnixMilli(), 10)}
	for key, value := range h.Metadata {
		if _, taken := p.Metadata[key]; !taken {
			p.Metadata[key] = value
		}
	}
	h.Timeout = eventTimeout
	answer, err := c.Send(ctx, h, p)
	switch {
	case err != nil:
		return fmt.Errorf("tell webhook %s: %s", h.Name, c.config.Redactor.Redact(err.Error()))
	case answer.Status > http.StatusAccepted:
		return fmt.Errorf("tell webhook %s: %s answers %d", h.Name, hostOf(h.URL), answer.Status)
	}
	return nil
}

// Send posts a payload until there is an answer other than 429 and 5xx, or the retries are used up. Its
// errors name the host and nothing else of the address, which may have a key in it.
func (c *Client) Send(ctx context.Context, h Hook, p Payload) (Answer, error) {
	if err := CheckURL(h.URL); err != nil {
		return Answer{}, err
	}
	if p.Metadata != nil {
		p.Metadata = maps.Clone(p.Metadata)
	}
	body, err := json.Marshal(p)
	if err != nil {
		return Answer{}, refusal("its payload cannot be encoded")
	}
	wait := c.config.Pause
	for left := h.Retries; ; left-- {
		answer, asked, err := c.attempt(ctx, h, body)
		_, final := errors.AsType[refusal](err)
		if left <= 0 || final || ctx.Err() != nil || err == nil && !worthRetrying(answer.Status) {
			return answer, err
		}
		timer := time.NewTimer(max(wait, asked))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return answer, err // what the last attempt came to says more than the deadline
		}
		wait = min(2*wait, maxPause)
	}
}

func worthRetrying(status int) bool {
	return status == http.StatusTooManyRequests || status >= 500 && status != http.StatusNotImplemented
}

// attempt posts once. asked is how long the server wants to be left alone.
func (c *Client) attempt(ctx context.Context, h Hook, body []byte) (a Answer, asked time.Duration, err error) {
	timeout := h.Timeout
	if timeout <= 0 {
		timeout = DefaultTimeout
	}
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %s", timeout))
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, h.URL, bytes.NewReader(body))
	if err != nil {
		return a, 0, refusal("its url cannot be asked: correct it in the Canary")
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("User-Agent", "wheelwright-webhook")
	response, err := c.client.Do(r)
	if err != nil {
		return a, 0, unsent(ctx, r.URL.Host, err)
	}
	defer response.Body.Close()
	said, err := io.ReadAll(io.LimitReader(response.Body, maxAnswer+1))
	switch {
	case err != nil:
		return a, 0, unsent(ctx, r.URL.Host, err)
	case len(said) > maxAnswer:
		return a, 0, refusal(fmt.Sprintf("%s answers more than %d MiB", r.URL.Host, maxAnswer>>20))
	}
	if seconds, err := strconv.Atoi(response.Header.Get("Retry-After")); err == nil && worthRetrying(response.StatusCode) {
		asked = min(max(time.Duration(seconds)*time.Second, 0), maxPause)
	}
	return Answer{response.StatusCode, said}, asked, nil
}

// unsent leaves the address out, but for the host.
func unsent(ctx context.Context, host string, err error) error {
	if final, ok := errors.AsType[refusal](err); ok {
		return final
	}
	switch cause := context.Cause(ctx); cause {
	case nil:
	case context.DeadlineExceeded: // the caller's, before the attempt's own
		err = errors.New("no answer before the deadline")
	default:
		err = cause
	}
	if outer, ok := errors.AsType[*url.Error](err); ok {
		err = outer.Err
	}
	return fmt.Errorf("%s: %w", host, err)
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return "the webhook"
	}
	return u.Host
}
