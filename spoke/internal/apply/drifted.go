package apply

import (
	"fmt"
	"strings"
	"time"
)

// Drifted is an object that somebody deleted, or fields of it that somebody took.
type Drifted struct {
	Object  string   // "Deployment app/backend"
	Fields  []string // sorted; none of an object that was deleted
	Missing bool
	By      string    // field managers, with commas between them; "" where nobody is known
	At      time.Time // when they wrote last

	Corrected bool   // it is put back
	Contested bool   // it was put back too often: it is left to By until another set is applied
	Outside   string // why it is outside of the envelope: it is left as it is, and not looked into; empty: it is not
}

func (d Drifted) String() string {
	const most = 3
	names := strings.Join(d.Fields[:min(most, len(d.Fields))], ", ")
	if more := len(d.Fields) - most; more > 0 {
		names += fmt.Sprintf(" and %d more", more)
	}
	switch {
	case d.Outside != "":
		return fmt.Sprintf("%s is outside of the envelope, is left as it is and not put back: %s", d.Object, d.Outside)
	case d.Missing:
		return d.Object + " was deleted"
	case d.Contested && d.By == "":
		return fmt.Sprintf("%s: %s was taken from %s %s", d.Object, names, defaultManager, contestedText)
	case d.Contested:
		return fmt.Sprintf("%s: %s is claimed by %s and %s, which took it %s", d.Object, names, defaultManager, d.By, contestedText)
	case d.By == "":
		return fmt.Sprintf("%s: %s was changed", d.Object, names)
	}
	return fmt.Sprintf("%s: %s was changed by %s at %s", d.Object, names, d.By, d.At.UTC().Format(time.RFC3339))
}
