package measure

import (
	"fmt"
	"strings"
)

// Pool makes one verdict of many: of one service's objectives, or of all services of a release. Any fail
// fails it, it passes where all pass, and else, also of none, it is inconclusive. names says whose each
// verdict is and goes before its reason; nil: nothing does. The value is nobody's and left out.
func Pool(names []string, verdicts []Verdict) Verdict {
	if len(verdicts) == 0 {
		return Verdict{Outcome: Inconclusive, Cause: NoData, Reason: "no data: nothing was measured", Do: Hold}
	}
	pooled := Verdict{Outcome: Pass}
	for _, v := range verdicts {
		pooled.Outcome = worse(pooled.Outcome, v.Outcome)
	}
	var reasons []string
	for i, v := range verdicts {
		pooled.Sample += v.Sample
		pooled.Minimum += v.Minimum
		if pooled.Newest.IsZero() || !v.Newest.IsZero() && v.Newest.Before(pooled.Newest) {
			pooled.Newest = v.Newest
		}
		if normal(v.Outcome) != pooled.Outcome {
			continue
		}
		reason := v.Reason
		if i < len(names) && names[i] != "" {
			reason = names[i] + ": " + reason
		}
		reasons = append(reasons, reason)
		if pooled.Outcome == Inconclusive {
			if pooled.Cause == "" {
				pooled.Cause = v.Cause
			}
			pooled.Do = stronger(pooled.Do, v.Do)
		}
	}
	pooled.Reason = listed(reasons)
	return pooled
}

// normal takes what is no outcome at all for what it is worth.
func normal(o Outcome) Outcome {
	if o == Pass || o == Fail {
		return o
	}
	return Inconclusive
}

func worse(a, b Outcome) Outcome {
	a, b = normal(a), normal(b)
	switch {
	case a == Fail || b == Fail:
		return Fail
	case a == Inconclusive || b == Inconclusive:
		return Inconclusive
	}
	return Pass
}

// stronger prefers asking a person to making load, and that to holding.
func stronger(a, b OnInconclusive) OnInconclusive {
	rank := func(o OnInconclusive) int {
		switch o {
		case Ask:
			return 2
		case GenerateLoad:
			return 1
		}
		return 0
	}
	if rank(b) > rank(a) {
		a = b
	}
	if a == "" {
		return Hold
	}
	return a
}

// listed joins the first three.
func listed(reasons []string) string {
	const most = 3
	if len(reasons) <= most {
		return strings.Join(reasons, "; ")
	}
	return fmt.Sprintf("%s; and %d more", strings.Join(reasons[:most], "; "), len(reasons)-most)
}

// Tally counts the checks of one analysis. Its zero is the beginning.
type Tally struct {
	Passed, Failed, Inconclusive uint32
	InRow                        uint32 // fails since the last pass
}

// Add counts one check. An inconclusive one neither adds to the fails in a row nor ends them.
func (t Tally) Add(o Outcome) Tally {
	switch normal(o) {
	case Pass:
		t.Passed++
		t.InRow = 0
	case Fail:
		t.Failed++
		t.InRow++
	default:
		t.Inconclusive++
	}
	return t
}

// Threshold is how many failed checks end an analysis. Total is what Flagger calls analysis.threshold: it
// counts the fails of the whole analysis, passes between them do not forgive, reaching it rolls back, and
// 0 means 1. InRow, which Flagger has not, ends it earlier, or alone where only InRow is set. Other than
// with Flagger, a check without data is not a failed one.
type Threshold struct {
	Total, InRow uint32
}

// Reached tells whether the analysis is over and failed.
func (t Threshold) Reached(n Tally) bool {
	if t.Total == 0 && t.InRow == 0 {
		t.Total = 1
	}
	return t.Total > 0 && n.Failed >= t.Total || t.InRow > 0 && n.InRow >= t.InRow
}
