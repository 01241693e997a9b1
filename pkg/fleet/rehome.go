package fleet

import "time"

// SignedReHome is a re-home on its way to a spoke, as the hub that the spoke leaves keeps it. What it says is in Signed;
// what stands beside it was read there.
type SignedReHome struct {
	Cluster Cluster
	Signed  []byte // the file, with the token
	Nonce   string // 32 hexadecimal digits
	To      string // HOST:PORT of the new hub
	Reason  string
	Keys    []string // that made the signatures, by their fingerprints
	By      string   // "operator NAME" who handed it over
	Sent    time.Time
	Issued  time.Time
	Expires time.Time

	Said     ReHomeState // by the spoke; empty: nothing yet
	Answer   string      // one line
	Answered time.Time
}

// ReHomeState is what has become of a re-home.
type ReHomeState string

// The states. The first four are a spoke's to say.
const (
	ReHomeMoving  ReHomeState = "Moving" // it is taken, and the spoke is still at the old hub
	ReHomeMoved   ReHomeState = "Moved"
	ReHomeRefused ReHomeState = "Refused"
	ReHomeGivenUp ReHomeState = "GivenUp" // it was taken, and the spoke stays where it is
	ReHomeWaiting ReHomeState = "Waiting"
	ReHomeExpired ReHomeState = "Expired" // and no answer came
)

// Said reports that a spoke may say this of a re-home.
func (s ReHomeState) Said() bool {
	return s == ReHomeMoving || s == ReHomeMoved || s == ReHomeRefused || s == ReHomeGivenUp
}

// State at a time.
func (r SignedReHome) State(now time.Time) ReHomeState {
	switch {
	case r.Said != "":
		return r.Said
	case !now.Before(r.Expires):
		return ReHomeExpired
	}
	return ReHomeWaiting
}

// ReHomeAnswer is what a spoke says of a re-home.
type ReHomeAnswer struct {
	Nonce string // 32 hexadecimal digits
	State ReHomeState
}
