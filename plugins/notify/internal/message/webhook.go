package message

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"time"

	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// body is the generic webhook's JSON. Fields are added, never renamed or taken away; Version changes
// when that has to be broken.
type body struct {
	Version      int               `json:"version"`
	ID           string            `json:"id"` // the same for a repeat
	At           string            `json:"at,omitempty"`
	Distribution string            `json:"distribution"`
	From         string            `json:"from,omitempty"` // empty: the first install
	To           string            `json:"to"`
	Cluster      string            `json:"cluster,omitempty"`
	Phase        string            `json:"phase"`
	Terminal     bool              `json:"terminal"`
	Severity     string            `json:"severity"` // info, warning, error
	Message      string            `json:"message,omitempty"`
	Verdict      *judged           `json:"verdict,omitempty"`
	Source       *source           `json:"source,omitempty"`
	Summary      map[string]uint32 `json:"summary,omitempty"` // deliveries by phase
}

type judged struct {
	Outcome       string `json:"outcome"` // pass, fail, inconclusive
	Reason        string `json:"reason,omitempty"`
	Sample        uint64 `json:"sample"`
	MinimumSample uint64 `json:"minimumSample"`
}

type source struct {
	Repository string `json:"repository,omitempty"`
	Tag        string `json:"tag,omitempty"`
	Commit     string `json:"commit,omitempty"`
}

// Webhook is the body for whoever takes JSON.
func Webhook(e *pluginv1.Event) ([]byte, error) {
	b := body{
		Version: 1, ID: e.GetId(), Distribution: e.GetDistribution(), From: e.GetVersionFrom(), To: e.GetVersionTo(), Cluster: e.GetCluster(),
		Phase: e.GetPhase(), Terminal: e.GetTerminal(), Severity: severity(e), Message: plain(e.GetMessage(), 4000), Summary: e.GetSummary(),
	}
	if at := when(e); !at.IsZero() {
		b.At = at.Format(time.RFC3339Nano)
	}
	if v := e.GetVerdict(); v.GetOutcome() != pluginv1.Outcome_OUTCOME_UNSPECIFIED {
		b.Verdict = &judged{Outcome: outcome(v), Reason: plain(v.GetReason(), 4000), Sample: v.GetSample(), MinimumSample: v.GetMinimumSample()}
	}
	if s := (source{Repository: withoutUser(e.GetRepository()), Tag: e.GetTag(), Commit: e.GetCommit()}); s != (source{}) {
		b.Source = &s
	}
	return encode(b)
}

// Sign is the value of the header webhook-signature as the Standard Webhooks specification
// (standardwebhooks.com) has it: HMAC-SHA256 over id, time and body, in base64. A secret that begins with
// whsec_ is base64 behind that; any other is taken as it is.
func Sign(secret, id string, at time.Time, body []byte) (string, error) {
	key := []byte(secret)
	if encoded, ok := strings.CutPrefix(secret, "whsec_"); ok {
		var err error
		if key, err = base64.StdEncoding.DecodeString(encoded); err != nil {
			return "", fmt.Errorf("the secret begins with whsec_ and is no base64 behind it")
		}
	}
	mac := hmac.New(sha256.New, key)
	fmt.Fprintf(mac, "%s.%s.", id, strconv.FormatInt(at.Unix(), 10))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)), nil
}

// encode writes JSON for machines and people: < stays <.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, fmt.Errorf("encode a message: %w", err)
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}
