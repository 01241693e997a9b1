// Package measure judges a candidate by numbers: Judge compares one number with an Objective, Pool makes
// one verdict of many, Tally counts failed checks. Those are pure. Beside them are the two places where
// numbers come from: Prometheus (HTTP API v1, by a built-in Query, one's own, or a Flagger
// MetricTemplate) and Pods, what Kubernetes knows of the candidate's pods where there is no Prometheus.
//
// A verdict has three states. What is absent, stale, NaN, infinite, of the wrong shape or rests on too few
// requests is Inconclusive, never a pass and never a fail. The package moves no traffic and decides no
// rollback; it keeps nothing between calls.
package measure

import (
	"fmt"
	"math"
	"time"
)

// Outcome is one of three.
type Outcome string

const (
	Pass         Outcome = "Pass"
	Fail         Outcome = "Fail"
	Inconclusive Outcome = "Inconclusive"
)

// Cause says what makes a verdict inconclusive.
type Cause string

const (
	NoTraffic   Cause = "NoTraffic"   // too few requests
	NoData      Cause = "NoData"      // the query answers nothing
	Stale       Cause = "Stale"       // what it answers is of another time
	NotANumber  Cause = "NotANumber"  // NaN, an infinity
	WrongShape  Cause = "WrongShape"  // not one number
	Unreachable Cause = "Unreachable" // nobody answers, or answers with an error
	NoBound     Cause = "NoBound"     // the objective asks for nothing that can be judged
)

// OnInconclusive is what is to be done about a verdict that is none.
type OnInconclusive string

const (
	Hold         OnInconclusive = "hold"
	Ask          OnInconclusive = "ask"
	GenerateLoad OnInconclusive = "generateLoad" // helps against missing requests only; else it holds
)

// Objective is what one number has to be. Bounds are inclusive.
type Objective struct {
	Name     string // as it is declared: "request-success-rate"
	Title    string // for people: "success rate"; empty: Name
	Unit     string // "%", "ms", empty
	Min, Max *float64
	Interval time.Duration // the span that the number is of
	// MinimumSample is how many requests it has to rest on. 0: at least one, where that is known.
	MinimumSample uint64
	// MaxAge of the newest sample; 0: twice the interval, at least a minute.
	MaxAge         time.Duration
	OnInconclusive OnInconclusive // empty: Hold
}

// Samples is what was found out about an objective.
type Samples struct {
	Shape  string    // what the source answered, where that is not a vector: "matrix"
	Values []float64 // one is wanted
	// Counted is how many requests the value rests on; nil: the source does not tell.
	Counted *float64
	Of      string    // what is counted; empty: requests
	Newest  time.Time // of the newest data; zero: the source does not tell
	Detail  string    // goes behind the reason: "backend-canary-7f-x: OOMKilled"
	// Problem is why there are no values, in one line, and Cause its kind.
	Problem string
	Cause   Cause
}

// Verdict is what Judge says of one objective, or Pool of many.
type Verdict struct {
	Objective string
	Outcome   Outcome
	Cause     Cause    // of an inconclusive one
	Reason    string   // one line, also of a pass
	Value     *float64 // nil: there is none
	Unit      string
	Sample    uint64
	Minimum   uint64
	Newest    time.Time
	Do        OnInconclusive // of an inconclusive one
}

// tolerance is the share by which a value may miss a bound: 99 of 100 requests is not less than 99 %
// because a rate is a division.
const tolerance = 1e-9

// Judge compares. It passes or fails only on exactly one finite number that is fresh and rests on
// enough requests.
func Judge(now time.Time, o Objective, s Samples) Verdict {
	v := Verdict{Objective: o.Name, Unit: o.Unit, Minimum: o.MinimumSample, Newest: s.Newest}
	if s.Counted != nil && *s.Counted > 0 && !math.IsInf(*s.Counted, 0) {
		v.Sample = uint64(math.Round(*s.Counted))
	}
	if len(s.Values) == 1 && finite(s.Values[0]) {
		v.Value = &s.Values[0]
	}
	if cause, reason := doubt(now, o, s, v.Sample); cause != "" {
		v.Outcome, v.Cause, v.Reason, v.Do = Inconclusive, cause, reason, o.do(cause, s.Counted != nil)
		return v
	}
	value := *v.Value
	switch {
	case o.Min != nil && value < *o.Min-slack(*o.Min):
		v.Outcome, v.Reason = Fail, o.compare(value, "<", *o.Min)
	case o.Max != nil && value > *o.Max+slack(*o.Max):
		v.Outcome, v.Reason = Fail, o.compare(value, ">", *o.Max)
	case o.Min != nil:
		v.Outcome, v.Reason = Pass, o.compare(value, ">=", *o.Min)
	default:
		v.Outcome, v.Reason = Pass, o.compare(value, "<=", *o.Max)
	}
	if o.Interval > 0 {
		v.Reason += " over " + span(o.Interval)
	}
	if s.Counted != nil {
		v.Reason += ", " + s.counted(v.Sample)
	}
	if s.Detail != "" {
		v.Reason += " (" + s.Detail + ")"
	}
	return v
}

// doubt says why nothing can be judged; an empty cause: everything is there.
func doubt(now time.Time, o Objective, s Samples, sample uint64) (Cause, string) {
	if s.Problem != "" {
		if s.Cause == "" {
			s.Cause = NoData
		}
		return s.Cause, s.Problem
	}
	if cause, reason := o.impossible(); cause != "" {
		return cause, reason
	}
	minimum := max(o.MinimumSample, 1)
	switch {
	case s.Counted != nil && !finite(*s.Counted):
		return NotANumber, "the number of requests is " + number(*s.Counted)
	case s.Counted != nil && sample < minimum:
		return NoTraffic, fmt.Sprintf("no traffic: %s in %s, wants %s", s.counted(sample), span(o.Interval), group(minimum))
	case s.Counted == nil && minimum > 1:
		return NoTraffic, fmt.Sprintf("unknown sample: the query does not tell how many requests it rests on, wants %s", group(minimum))
	case s.Shape != "":
		return WrongShape, fmt.Sprintf("the query of %s returned a %s, wants one number", o.Name, s.Shape)
	case len(s.Values) == 0:
		return NoData, "no data: the query of " + o.Name + " returned nothing"
	case len(s.Values) > 1:
		return WrongShape, fmt.Sprintf("the query of %s returned a vector of %d, wants one number: write sum() around it, or what else makes one", o.Name, len(s.Values))
	}
	oldest := o.maxAge()
	switch age := now.Sub(s.Newest); {
	case s.Newest.IsZero():
	case age > oldest:
		return Stale, fmt.Sprintf("stale: newest sample is %s old", span(age))
	case age < -oldest:
		return Stale, fmt.Sprintf("newest sample is %s in the future: the clocks differ", span(-age))
	}
	if !finite(s.Values[0]) {
		return NotANumber, o.title() + " is " + number(s.Values[0])
	}
	return "", ""
}

// impossible says why no value at all could be judged by o.
func (o Objective) impossible() (Cause, string) {
	switch {
	case o.Min == nil && o.Max == nil:
		return NoBound, o.title() + " has neither a minimum nor a maximum"
	case o.Min != nil && !finite(*o.Min), o.Max != nil && !finite(*o.Max):
		return NoBound, "a bound of " + o.title() + " is not a finite number"
	case o.Min != nil && o.Max != nil && *o.Min > *o.Max:
		return NoBound, fmt.Sprintf("%s has a minimum of %s above its maximum of %s", o.title(), number(*o.Min), number(*o.Max))
	}
	return "", ""
}

func (o Objective) maxAge() time.Duration {
	if o.MaxAge > 0 {
		return o.MaxAge
	}
	return max(2*o.Interval, time.Minute)
}

func (o Objective) title() string {
	if o.Title != "" {
		return o.Title
	}
	return o.Name
}

// do is what helps. Load helps where too few requests are counted; where nobody counts them it may, as a rate of
// no requests is NaN or nothing at all.
func (o Objective) do(cause Cause, counted bool) OnInconclusive {
	switch {
	case o.OnInconclusive == Ask:
		return Ask
	case o.OnInconclusive == GenerateLoad && (cause == NoTraffic || !counted && (cause == NoData || cause == NotANumber)):
		return GenerateLoad
	}
	return Hold
}

func (o Objective) compare(value float64, sign string, bound float64) string {
	unit := o.Unit
	if unit != "" {
		unit = " " + unit
	}
	a, b := apart(value, bound)
	return fmt.Sprintf("%s %s%s %s %s%s", o.title(), a, unit, sign, b, unit)
}

func (s Samples) counted(n uint64) string {
	of := s.Of
	if of == "" {
		of = "requests"
	}
	return group(n) + " " + of
}

func finite(f float64) bool { return !math.IsNaN(f) && !math.IsInf(f, 0) }

func slack(bound float64) float64 { return tolerance * math.Max(1, math.Abs(bound)) }
