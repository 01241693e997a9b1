package store

import (
	"encoding/json"
	"strconv"
	"time"
)

// encode makes a record what is on disk. Those that come by the ten thousand at once have encodings written by hand,
// which are those of encoding/json to the byte.
func encode(record any) ([]byte, error) {
	e := encoder{buf: make([]byte, 0, 384)} // of most that is enough
	switch r := record.(type) {
	case eventRecord:
		e.event(&r)
	case journalRecord:
		e.journal(&r)
	case []installationRecord:
		e.installations(r)
	default:
		return json.Marshal(record)
	}
	return e.buf, e.err
}

// encoder appends JSON. Its err is the first.
type encoder struct {
	buf []byte
	err error
}

func (e *encoder) event(r *eventRecord) {
	e.open()
	e.time(`"at":`, r.At)
	e.number(`"seq":`, r.Seq)
	e.text(`"cluster":`, string(r.Cluster))
	e.text(`"distribution":`, r.Distribution)
	e.text(`"version":`, r.Version)
	e.key(`"kind":`)
	e.string(r.Kind)
	e.text(`"message":`, r.Message)
	e.links(r.links)
	e.close()
}

func (e *encoder) links(l links) {
	e.number(`"beforeC":`, l.OfCluster)
	e.number(`"beforeD":`, l.OfDistribution)
}

func (e *encoder) journal(r *journalRecord) {
	e.open()
	e.key(`"acked":`)
	e.buf = strconv.AppendUint(e.buf, r.Acked, 10)
	e.time(`"at":`, r.At)
	for n := range r.Health {
		if n == 0 {
			e.key(`"health":[`)
		} else {
			e.buf = append(e.buf, ',')
		}
		e.open()
		e.key(`"distribution":`)
		e.string(r.Health[n].Distribution)
		e.health(&r.Health[n].healthRecord)
		e.close()
	}
	if len(r.Health) > 0 {
		e.buf = append(e.buf, ']')
	}
	e.close()
}

func (e *encoder) installations(list []installationRecord) {
	if list == nil {
		e.buf = append(e.buf, "null"...)
		return
	}
	e.buf = append(e.buf, '[')
	for i := range list {
		if i > 0 {
			e.buf = append(e.buf, ',')
		}
		e.installation(&list[i])
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) installation(r *installationRecord) {
	e.open()
	e.key(`"distribution":`)
	e.string(r.Distribution)
	e.text(`"variant":`, r.Variant)
	e.text(`"namespace":`, r.Namespace)
	e.policy(&r.Policy)
	e.text(`"running":`, r.Running)
	e.text(`"bundle":`, r.Bundle)
	e.text(`"overlay":`, r.Overlay)
	e.text(`"rendered":`, r.Rendered)
	e.text(`"phase":`, r.Phase)
	e.text(`"target":`, r.Target)
	e.text(`"reason":`, r.Reason)
	e.time(`"phaseSince":`, r.PhaseSince)
	e.health(&r.healthRecord)
	e.text(`"wants":`, r.Wants)
	e.text(`"would":`, r.Would)
	e.flag(`"declined":`, r.Declined)
	if r.Canary != nil {
		e.other(`"canary":`, r.Canary)
	}
	e.texts(`"signedBy":`, r.SignedBy)
	e.text(`"alarm":`, r.Alarm)
	if r.Channel != nil {
		e.other(`"channel":`, r.Channel)
	}
	e.close()
}

func (e *encoder) health(r *healthRecord) {
	e.text(`"health":`, r.Health)
	e.text(`"healthMessage":`, r.HealthMessage)
	e.integer(`"objects":`, r.Objects)
	e.integer(`"ready":`, r.Ready)
	e.integer(`"driftCorrected":`, r.DriftCorrected)
	e.integer(`"drifted":`, r.Drifted)
	e.text(`"driftMessage":`, r.DriftMessage)
	e.time(`"observedAt":`, r.ObservedAt)
}

func (e *encoder) policy(r *policyRecord) {
	before := len(e.buf)
	e.key(`"policy":`)
	e.open()
	empty := len(e.buf)
	e.text(`"range":`, r.Range)
	e.flag(`"prereleases":`, r.Prereleases)
	if r.Pin != nil {
		e.other(`"pin":`, r.Pin)
	}
	e.text(`"patch":`, r.Patch)
	e.text(`"minor":`, r.Minor)
	e.text(`"major":`, r.Major)
	e.texts(`"windows":`, r.Windows)
	if r.FromHub != nil {
		e.other(`"fromHub":`, r.FromHub)
	}
	if len(e.buf) == empty && r.Windows == nil { // there is none
		e.buf = e.buf[:before]
		return
	}
	e.close()
}

func (e *encoder) open()  { e.buf = append(e.buf, '{') }
func (e *encoder) close() { e.buf = append(e.buf, '}') }

// key begins a member; name is quoted, and followed by its colon.
func (e *encoder) key(name string) {
	if n := len(e.buf); n > 0 && e.buf[n-1] != '{' {
		e.buf = append(e.buf, ',')
	}
	e.buf = append(e.buf, name...)
}

// text is a member that is left out where it is empty, as are the following.
func (e *encoder) text(name, s string) {
	if s != "" {
		e.key(name)
		e.string(s)
	}
}

func (e *encoder) texts(name string, all []string) {
	if len(all) == 0 {
		return
	}
	e.key(name)
	for i, s := range all {
		e.buf = append(e.buf, "[,"[min(i, 1)])
		e.string(s)
	}
	e.buf = append(e.buf, ']')
}

func (e *encoder) number(name string, n uint64) {
	if n != 0 {
		e.key(name)
		e.buf = strconv.AppendUint(e.buf, n, 10)
	}
}

func (e *encoder) integer(name string, n int) {
	if n != 0 {
		e.key(name)
		e.buf = strconv.AppendInt(e.buf, int64(n), 10)
	}
}

func (e *encoder) flag(name string, is bool) {
	if is {
		e.key(name)
		e.buf = append(e.buf, "true"...)
	}
}

func (e *encoder) time(name string, t time.Time) {
	if t.IsZero() {
		return
	}
	e.key(name)
	e.buf = append(e.buf, '"')
	buf, err := t.AppendText(e.buf) // a year of five digits
	if err != nil {
		e.fail(err)
		return
	}
	e.buf = append(buf, '"')
}

// other is a member that is rare.
func (e *encoder) other(name string, value any) {
	e.key(name)
	e.marshal(value)
}

// string is written as it is where nothing in it needs an escape.
func (e *encoder) string(s string) {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			e.marshal(s)
			return
		}
	}
	e.buf = append(e.buf, '"')
	e.buf = append(e.buf, s...)
	e.buf = append(e.buf, '"')
}

func (e *encoder) marshal(value any) {
	data, err := json.Marshal(value)
	if err != nil {
		e.fail(err)
	}
	e.buf = append(e.buf, data...)
}

func (e *encoder) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}
