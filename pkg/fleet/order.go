package fleet

import "time"

// SignedOrder is an operator's signed order on its way to a spoke, as a hub keeps it. What it says is in the text.
type SignedOrder struct {
	Cluster      Cluster
	Distribution string
	Nonce        string // 32 hexadecimal digits
	Text         []byte // what is signed
	Signature    []byte // armoured
	Key          string // that made the signature, by its fingerprint
	By           string // "operator NAME" who handed it over
	Sent         time.Time
	Expires      time.Time

	Answered time.Time // zero: the spoke has not answered yet
	Accepted bool
	Answer   string // one line
}

// OrderState is what has become of an order.
type OrderState string

// The states.
const (
	OrderWaiting  OrderState = "Waiting"
	OrderAccepted OrderState = "Accepted"
	OrderRefused  OrderState = "Refused"
	OrderExpired  OrderState = "Expired" // and no answer came
)

// State at a time.
func (o SignedOrder) State(now time.Time) OrderState {
	switch {
	case o.Accepted:
		return OrderAccepted
	case !o.Answered.IsZero():
		return OrderRefused
	case !now.Before(o.Expires):
		return OrderExpired
	}
	return OrderWaiting
}
