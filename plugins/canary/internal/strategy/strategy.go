// Package strategy reads what a release asks of a canary and makes the objects that one needs. It is
// pure: objects are decoded YAML or JSON, nothing is fetched, applied or measured, and no argument changes.
//
// What is asked is read from Flagger's Canary objects (flagger.app/v1alpha3 and v1beta1), whether or not
// Flagger runs anywhere. Read names everything that is wrong with them at once, and by its path every
// field that it does not know or does not act on: a misspelt threshold must not become no threshold.
//
// # The stable side is never touched before promotion
//
// Flagger moves the running workload's pods to a copy named -primary and hands the original's name to the
// candidate. Here it is the other way round: what runs keeps its name, its pods, its autoscaler and its
// labels, and the candidate is a copy of the new workload named -canary beside it, with a Service of its
// own. So there is no moment at which the stable pods restart because a canary begins; the way back is to
// delete what was added, which cannot fail half way, needs no image pull and works when everything else
// is gone; and whoever kills the process at any step leaves a cluster whose stable side is the old
// release, whole.
//
// Nouns: a Service is one part of the application with a course of its own; its Target is the workload; a
// Step is an amount of traffic that has to pass a number of checks; a Candidate is the copy.
package strategy

import (
	"time"

	"github.com/wheelwright-dev/wheelwright/plugins/canary/internal/document"
)

// Object is a Kubernetes object as it is decoded from YAML or JSON.
type Object = document.Object

// Kind is how live traffic comes to a candidate.
type Kind string

// What the kinds do in their Steps.
const (
	// Progressive gives the candidate a growing share of the requests.
	Progressive Kind = "Progressive"
	// ABTest gives it the requests that fit a Match.
	ABTest Kind = "ABTest"
	// BlueGreen tests it without live traffic and then gives it all.
	BlueGreen Kind = "BlueGreen"
	// Mirror is BlueGreen with copies of live requests, whose answers nobody sees.
	Mirror Kind = "Mirror"
	// Replicas is Progressive where nothing can weigh requests: the share is that of the pods.
	Replicas Kind = "Replicas"
)

// Routers, by the names that Options.Router and Service.Router use.
const (
	RouterNone       = "none"
	RouterGatewayAPI = "gatewayapi:v1"
	RouterIstio      = "istio"
	RouterLinkerd    = "linkerd"
	RouterNGINX      = "nginx"
)

// Service is one part of the application that has a course of its own.
type Service struct {
	Name       string // of the Service object that users of it call
	Namespace  string
	Canary     string // name of the object that declares the strategy
	Declared   Object // that object
	Target     Ref
	Label      string // the label in which the candidate's pods differ from the stable ones
	Autoscaler Ref    // zero: none
	Ingress    Ref    // zero: none named
	HasService bool   // the release brings the Service object itself; else StableService makes it
	Ports      []Port
	Main       Port   // of Ports: the one that spec.service.port names, else the first
	LoadPath   string // what is asked where load is generated; begins with /
	Route      Object // what spec.service says of routes that have to be made: hosts, gateways, gatewayRefs, ...

	Strategy Kind
	Router   string
	Steps    []Step // none: straight to promotion
	Return   []int  // the candidate's shares on the way back to stable after promotion, the last 0; nil: at once
	Matches  []Match
	Affinity Affinity

	Interval         time.Duration // between two checks
	Threshold        int           // failed checks that end it, at least 1
	ProgressDeadline time.Duration // for a workload to become ready
	StableReady      int           // percent of the pods that have to be ready
	CandidateReady   int
	Metrics          []Metric
	Webhooks         []Webhook
	SkipAnalysis     bool // promoted unmeasured
	Suspended        bool // held by whoever wrote the Canary

	After []string // services that step before this one
}

// Candidate is the name of the candidate's Service.
func (s Service) Candidate() string { return s.Name + Suffix }

// Ref names an object in the namespace of the Service.
type Ref struct{ APIVersion, Kind, Name string }

func (r Ref) String() string { return r.Kind + " " + r.Name }

// Port is a port of a Service object.
type Port struct {
	Name        string
	Port        int
	Target      any // a number or the name of a container's port
	Protocol    string
	AppProtocol string // may be empty
}

// Step is an amount of traffic that has to pass a number of checks.
type Step struct {
	Weight  int  // percent of the requests to the candidate; with Matched, of those that fit
	Matched bool // only requests that fit one of the Matches
	Mirror  int  // percent of the requests that are copied to the candidate
	Passes  int  // checks, at least 1
}

// Match fits a request that has all of its headers.
type Match struct {
	Headers []Header `json:"headers"`
}

// Op is how a header's value is compared.
type Op string

// Regex is RE2 and has to fit the whole value, as Envoy reads it.
const (
	Exact  Op = "exact"
	Prefix Op = "prefix"
	Regex  Op = "regex"
)

// Header is one condition; Name is lower case, "cookie" for cookies.
type Header struct {
	Name  string `json:"name"`
	Op    Op     `json:"op"`
	Value string `json:"value"`
}

// Affinity holds users who were led to the candidate there. Zero: they are not held.
type Affinity struct {
	Cookie     string
	MaxAge     time.Duration
	Attributes []string // of the cookie, such as Path=/ and Secure, as a response spells them
}

// Metric is what is measured at every check.
type Metric struct {
	Name      string // request-success-rate (percent) and request-duration (milliseconds) are built in
	Interval  time.Duration
	Min, Max  *float64 // inclusive; nil: none on that side
	Query     string   // of the release itself; empty: built in, or of the Template
	Template  TemplateRef
	Variables map[string]string
}

// TemplateRef names a MetricTemplate; zero: none.
type TemplateRef struct{ Namespace, Name string }

// Hook is when a webhook is called.
type Hook string

// The hooks that Flagger knows.
const (
	ConfirmRollout         Hook = "confirm-rollout"
	PreRollout             Hook = "pre-rollout"
	Rollout                Hook = "rollout"
	ConfirmTrafficIncrease Hook = "confirm-traffic-increase"
	ConfirmPromotion       Hook = "confirm-promotion"
	PostRollout            Hook = "post-rollout"
	Rollback               Hook = "rollback"
	Event                  Hook = "event"
)

// Webhook is a call to a service of the release's.
type Webhook struct {
	Name     string
	Type     Hook
	URL      string
	Timeout  time.Duration
	Retries  int
	Mute     bool
	Metadata map[string]string
}
