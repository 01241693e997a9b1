// Package probe is what a vendor declares under `tests` in wheelwright.yaml: requests to Services of the
// release, and what has to come back. Parse reads it strictly, with every mistake named by the path of its
// key, at publication and again by who asks. The package asks nobody.
package probe

import (
	"regexp"
	"time"
)

// Probe is one declared test. Exactly one of HTTP and GRPC is there.
type Probe struct {
	Name     string
	Service  string // name of the Service that users call
	Port     string // a number or a port's name; empty: the Service's first
	When     []string
	Timeout  time.Duration // of one try
	Retries  int           // further tries
	Interval time.Duration // between two
	Latency  time.Duration // an answer later than this is not as it should be; 0: any
	HTTP     *HTTP
	GRPC     *GRPC
}

// When a probe is run; both where none is named.
const (
	BeforeTraffic  = "before-traffic"
	AfterPromotion = "after-promotion"
)

// HTTP is a request and what has to come back.
type HTTP struct {
	TLS, Insecure bool
	Method        string
	Path          string // with its query
	Headers       map[string]string
	Body          string

	Status   []Range
	Contains string
	Matches  *regexp.Regexp
	JSON     []Equal
}

// Range of status codes, both inclusive.
type Range struct{ From, To int }

// Equal is a value that an answer in JSON has to have.
type Equal struct {
	Path  string // as it is declared
	Steps []any  // keys and indexes
	Value any
}

// GRPC asks grpc.health.v1.Health/Check.
type GRPC struct {
	TLS, Insecure bool
	Service       string // as the server names it; empty: the whole server
}
