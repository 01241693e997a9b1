package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// walking is a spoke with a canary under way.
func walking() *stand {
	s := newStand()
	s.now.Phase, s.now.Target, s.now.Reason = fleet.Progressing, "1.2.0", "step 2 of 5 (backend 33 %): 1 of 3 measurements passed"
	s.now.Canary = &fleet.Canary{Step: 2, Steps: 5, Traffic: traffic()}
	return s
}

func TestCanariesAreSteered(t *testing.T) {
	s := walking()
	serve(t, s)
	for _, c := range []struct {
		args []string
		code int
		out  string
		text string
	}{
		{[]string{"hold", "shop", "--reason", "lunch\nbreak"}, 0, "the canary of shop 1.2.0 is held\n", "spoke canary resume shop"},
		{[]string{"resume", "shop"}, 1, "", "nothing to act on; spoke status shop"},
		{[]string{"step", "shop"}, 2, "", "about to go on from step 2/5, backend, web 33 %; cache what matches of shop 1.2.0, whatever was measured: add --yes"},
		{[]string{"skip", "shop", "1.2.0"}, 2, "", "about to promote at step 2/5, backend, web 33 %; cache what matches of shop 1.2.0, without what is left: add --yes"},
		{[]string{"skip", "shop", "1.3.0", "--yes"}, 1, "", "canary skip: shop 1.3.0: nothing to act on: no canary is under way; spoke status shop"},
		{[]string{"step", "mail", "--yes"}, 2, "", "not subscribed to"},
		{[]string{"step", "shop", "--yes"}, 0, "the canary of shop 1.2.0 is led on\n", "spoke canary status shop -w"},
		{[]string{"skip", "shop", "1.2.0", "--yes", "--reason", "INC-17"}, 0, "the canary of shop 1.2.0 is promoted\n", "spoke status shop"},
		{[]string{"abort", "shop"}, 2, "", "about to roll shop back"},
	} {
		code, out, text := invoke(t, append([]string{"canary"}, c.args...)...)
		if code != c.code || out != c.out || !strings.Contains(text, c.text) {
			t.Errorf("%v: %d %q %q", c.args, code, out, text)
		}
	}
	if got := s.said(); got != "hold  lunch break; step 1.2.0; skip 1.2.0 INC-17" {
		t.Errorf("the spoke heard %s", got)
	}
	if code, out, _ := invoke(t, "canary"); code != 2 || !strings.Contains(out, "abort") {
		t.Errorf("no word: %d %s", code, out)
	}
	_, out, _ := invoke(t, "__complete", "canary", "skip", "shop", "")
	if !strings.HasPrefix(out, "1.2.0\n") {
		t.Errorf("completed is %q", out)
	}
}

func TestACanaryIsAborted(t *testing.T) {
	s := walking()
	s.now.Running = "1.0.1"
	serve(t, s)
	if code, out, text := invoke(t, "canary", "abort", "shop", "--dry-run"); code != 0 || out != "would roll shop back from 1.2.0 to 1.0.1\n" {
		t.Errorf("dry run: %d %s%s", code, out, text)
	}
	code, out, text := invoke(t, "canary", "abort", "shop", "--yes", "--reason", "orders are slow")
	if code != 0 || out != "shop runs 1.0.1, rolled back from 1.2.0\n" || !strings.Contains(text, "1.2.0 is held: `spoke approve shop 1.2.0`") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if got := s.said(); got != "rollback 1.0.1 orders are slow" {
		t.Errorf("the spoke heard %s", got)
	}
	if code, _, text := invoke(t, "canary", "abort", "shop", "--yes"); code != 1 || !strings.Contains(text, "no canary is under way") {
		t.Errorf("once more: %d %s", code, text)
	}
}

func TestHowFarACanaryIs(t *testing.T) {
	all := response()
	of := func(name string) *syncv1.SubscriptionStatus {
		s, err := one(all, name)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		file, format, of string
		code             int
	}{
		{"canary.txt", "table", "game", exitcode.OK},
		{"canary.json", "json", "game", exitcode.OK},
		{"canary-name.txt", "name", "game", exitcode.OK},
		{"canary-asked.txt", "wide", "blog", exitcode.Waiting},
	} {
		var out, text bytes.Buffer
		a := &app{out: &out, err: &text, now: func() time.Time { return moment }}
		err := a.printCanary(&printer.Printer{Out: &out, Format: c.format}, of(c.of))
		if got := exitcode.Of(err); got != c.code || exitcode.Message(err) != "" {
			t.Errorf("%s: exit code %d, want %d; %v", c.file, got, c.code, err)
		}
		if asked := strings.Contains(text.String(), "spoke approve blog 1.4.0, or: spoke reject blog 1.4.0"); asked != (c.code == exitcode.Waiting) {
			t.Errorf("%s: %s", c.file, text.String())
		}
		golden(t, c.file, out.Bytes())
	}
	odd := wire.Installation(installations()[0])
	odd.Canary = &syncv1.Canary{Step: 7, Steps: 2}
	if err := (&app{}).printCanary(&printer.Printer{}, odd); exitcode.Of(err) != exitcode.Failed {
		t.Errorf("step 7 of 2: %v", err)
	}
}

func TestACanaryIsWatched(t *testing.T) {
	s := walking()
	serve(t, s)
	if code, out, _ := invoke(t, "canary", "status", "shop"); code != 0 || !strings.Contains(out, "backend") {
		t.Errorf("%d %s", code, out)
	}
	first := s.seen
	s.looked = func() { // what the spoke does meanwhile
		switch s.seen - first {
		case 2:
			s.now.Canary, s.now.Reason = &fleet.Canary{Step: 3, Steps: 5, Held: true}, "held by a person"
		case 4:
			s.now.Canary, s.now.Phase, s.now.Reason = nil, fleet.Settling, ""
		case 5:
			s.now.Running, s.now.Phase = "1.2.0", fleet.Succeeded
		}
	}
	want := `shop  Progressing(1.2.0 step 2/5, backend, web 33 %; cache what matches): step 2 of 5 (backend 33 %): 1 of 3 measurements passed
shop  Progressing(1.2.0 step 3/5, held): held by a person
shop  Settling(1.2.0)
shop  Succeeded
`
	if code, out, text := invoke(t, "canary", "status", "shop", "-w"); code != 0 || out != want {
		t.Errorf("%d\n%s%s", code, out, text)
	}
	if code, _, text := invoke(t, "canary", "status", "shop"); code != 1 || !strings.Contains(text, "no canary is under way") {
		t.Errorf("when it is over: %d %s", code, text)
	}
}

func TestACanaryThatIsTakenBackIsWatched(t *testing.T) {
	s := walking()
	serve(t, s)
	s.looked = func() {
		switch s.seen {
		case 2:
			s.now.Canary, s.now.Phase, s.now.Reason = nil, fleet.RollingBack, "step 2 of 5 (backend 33 %): success rate 66.7 % < 99 %"
		case 3:
			s.now.Phase = fleet.RolledBack
		}
	}
	code, out, text := invoke(t, "canary", "status", "shop", "-w")
	if code != 1 || !strings.Contains(out, "\nshop  RollingBack(1.2.0): step 2 of 5") || !strings.HasSuffix(out, "\nshop  RolledBack: step 2 of 5 (backend 33 %): success rate 66.7 % < 99 %\n") || !strings.Contains(text, "shop 1.2.0 was not promoted; spoke status shop") {
		t.Errorf("%d\n%s%s", code, out, text)
	}
}
