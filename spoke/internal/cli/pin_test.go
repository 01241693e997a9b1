package cli

import (
	"bytes"
	"os/user"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/exitcode"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/printer"
	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	localv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/local/v1"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/local"
)

func TestPin(t *testing.T) {
	const until = "2999-01-31"
	for _, c := range []struct {
		name      string
		args      []string
		code      int
		out, says string
		heard     string
	}{
		{"what runs", []string{"1.1.0", "--until", until}, 0, "pinned shop at 1.1.0 until 2999-01-31\n",
			"without the pin, 1.5.0 would be taken\nnext: spoke status shop; `spoke unpin shop` takes the pin away\n", "pin shop 1.1.0 by ada: freeze  until 2999-01-31"},
		{"only to see", []string{"1.2.0", "--dry-run"}, 0, "would pin shop at 1.2.0\n", "shop goes from 1.1.0 to 1.2.0\nwithout the pin, 1.5.0 would be taken\n", ""},
		{"lower than what runs", []string{"1.0.0"}, 0, "pinned shop at 1.0.0\n", "warning: 1.0.0 is lower than 1.1.0, which runs: shop goes back\n", "pin shop 1.0.0 by ada: freeze"},
		{"by way of a required stop", []string{"1.6.0"}, 0, "pinned shop at 1.6.0\n",
			"warning: 1.6.0 is not on the way from 1.1.0 in one step: 1.4.0 comes first (1.4.0 on the way to 1.6.0)\n", "pin shop 1.6.0 by ada: freeze"},
		{"one that was recalled", []string{"1.3.0"}, 0, "pinned shop at 1.3.0\n",
			"warning: 1.3.0 is not taken now: 1.3.0, the pin of spoke, is not taken: 1.3.0 was recalled: it loses orders; what runs stays\n", "pin shop 1.3.0 by ada: freeze"},
		{"for programs", []string{"1.1.0", "-o", "name"}, 0, "shop\n", "", "pin shop 1.1.0 by ada: freeze"},
		{"one that is not on offer", []string{"9.9.9"}, 1, "", "spoke: pin: pin shop: 9.9.9 is not on offer and does not run; on offer are [1.1.0 1.2.0]\n", ""},
		{"no version", []string{"latest"}, 2, "", `"latest" is not a semantic version`, ""},
		{"one that is over", []string{"1.1.0", "--until", "2020-01-31"}, 2, "", "--until: 2020-01-31 is over already: it is 2026-05-04T12:00:00Z; see `spoke pin --help`", ""},
		{"an end that is none", []string{"1.1.0", "--until", "soon"}, 2, "", `"soon": want a date such as 2027-01-31`, ""},
		{"a format that is none", []string{"1.1.0", "-o", "xml"}, 2, "", "json", ""},
		{"no reason", []string{"1.1.0", "--reason", ""}, 2, "", "--reason is missing", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStand()
			serve(t, s)
			code, out, text := invoke(t, append([]string{"pin", "shop", "--reason", "freeze", "--author", "ada"}, c.args...)...)
			if code != c.code || out != c.out || !strings.Contains(text, c.says) {
				t.Errorf("%d\n%s%s\nwant %d\n%s%s", code, out, text, c.code, c.out, c.says)
			}
			if got := s.said(); got != c.heard {
				t.Errorf("the spoke heard %q, want %q", got, c.heard)
			}
		})
	}
	s := newStand()
	serve(t, s)
	if code, _, text := invoke(t, "pin", "mail", "1.0.0", "--reason", "x"); code != 2 || !strings.Contains(text, "[shop]") {
		t.Errorf("another distribution: %d %s", code, text)
	}
	if code, _, text := invoke(t, "pin", "shop", "x", "--until", "1999-01-01"); code != 2 || !strings.Contains(text, "semantic") || !strings.Contains(text, "--reason") || !strings.Contains(text, "over already") {
		t.Errorf("all problems at once: %d %s", code, text)
	}
	if code, out, text := invoke(t, "pin", "shop", "1.1.0", "--reason", "x", "--until", "365000h"); code != 0 || !strings.HasPrefix(out, "pinned shop at 1.1.0 until 20") {
		t.Errorf("a stretch: %d %s%s", code, out, text)
	}
	if u, err := user.Current(); err == nil && !strings.Contains(s.said(), "by "+u.Username+": x") {
		t.Errorf("who pinned: %s", s.said())
	}
	if _, out, _ := invoke(t, "__complete", "pin", "shop", ""); !strings.HasPrefix(out, "1.1.0\n1.5.0\n1.0.1\n1.0.0\n") {
		t.Errorf("completed:\n%s", out)
	}
}

func TestUnpin(t *testing.T) {
	s := newStand()
	serve(t, s)
	for _, args := range [][]string{{"unpin", "shop"}, {"unpin", "shop", "--dry-run"}} {
		if code, out, text := invoke(t, args...); code != 1 || out != "" || !strings.Contains(text, "nothing to act on: it is not pinned") {
			t.Errorf("%v without a pin: %d %s%s", args, code, out, text)
		}
	}
	s.now.Policy.Pin, s.now.Would = &fleet.Pin{Version: "1.1.0", Reason: "freeze", Source: fleet.PinSpoke, Author: "ada"}, "1.5.0"
	if code, out, text := invoke(t, "unpin", "shop", "--dry-run"); code != 0 || out != "would unpin shop, which was pinned at 1.1.0 by ada (spoke): freeze\n" ||
		text != "1.5.0 is taken then, where nothing else holds it back\n" {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, out, text := invoke(t, "unpin", "shop", "--reason", "it is over"); code != 0 || out != "unpinned shop, which was pinned at 1.1.0 by ada (spoke): freeze\n" || !strings.Contains(text, "spoke status shop") {
		t.Errorf("%d %s%s", code, out, text)
	}
	if code, _, text := invoke(t, "unpin", "mail"); code != 2 || !strings.Contains(text, "[shop]") {
		t.Errorf("another distribution: %d %s", code, text)
	}
	if got := s.said(); got != "unpin shop it is over" {
		t.Errorf("the spoke heard %s", got)
	}
}

func decisions(t *testing.T) *localv1.GetStatusResponse {
	t.Helper()
	windows := func(texts ...string) fleet.Windows {
		ws, err := fleet.ParseWindows(texts)
		if err != nil {
			t.Fatal(err)
		}
		return ws
	}
	night, day := windows("Mon-Fri 22:00-04:00 Europe/Berlin"), windows("daily 09:00-17:00 Europe/Berlin")
	runs := func(name, version string, p fleet.Policy, reason string) fleet.Installation {
		return fleet.Installation{Distribution: name, Namespace: name, Variant: "default", Policy: p, Running: version, Phase: fleet.Succeeded, Target: version, Reason: reason,
			Health: fleet.Healthy, Objects: 3, Ready: 3, ObservedAt: moment, Wants: version}
	}
	all := []fleet.Installation{
		runs("shop", "1.2.0", fleet.Policy{Pin: &fleet.Pin{Version: "1.2.0", Reason: "year-end freeze", Source: fleet.PinSpoke, Author: "ada", Until: moment.Add(12 * time.Hour)}, Windows: night}, ""),
		runs("mail", "2.0.0", fleet.Policy{Pin: &fleet.Pin{Version: "2.1.0", Source: fleet.PinConfig}, Windows: day}, "2.1.0, the pin of spoke.yaml, is not on offer"),
		runs("crm", "1.0.0", fleet.Policy{Range: "1.x || 2.x", Minor: fleet.AskFirst, Major: fleet.NeverTaken}, "2.0.0 is not taken (versions.major: never)"),
		runs("news", "1.4.0", fleet.Policy{}, "1.4.0 was recalled: it loses orders"),
		runs("wiki", "1.4.0", fleet.Policy{Pin: &fleet.Pin{Version: "1.4.0", Source: fleet.PinSpoke, Author: "ada"}}, "1.4.0 was recalled: it loses orders; the pin of spoke keeps it"),
		runs("maps", "1.0.0", fleet.Policy{Pin: &fleet.Pin{Version: "1.0.0", Source: fleet.PinConfig, Until: moment}}, ""),
		runs("bank", "1.0.0", fleet.Policy{Windows: windows("daily 00:00-24:00 UTC")}, ""),
		runs("feed", "1.3.0", fleet.Policy{}, "1.4.0: recalled by the vendor: it loses orders"),
	}
	all[0].Would, all[0].Wants = "1.5.0", "1.2.0"
	all[6].Phase, all[6].Target = fleet.Settling, "1.1.0"
	all[7].Phase, all[7].Target = fleet.RolledBack, "1.4.0"
	waits := runs("chat", "1.0.0", fleet.Policy{Windows: night}, "its maintenance window opens at 2026-05-04T20:00:00Z (Mon-Fri 22:00-04:00 Europe/Berlin)")
	waits.Phase, waits.Target, waits.Wants = fleet.AwaitingWindow, "1.1.0", "1.1.0"
	r := &localv1.GetStatusResponse{At: wire.Time(moment), Cluster: "acme/eu-1", Hub: "hub.example.com:7443", Running: true, Connected: true}
	recalled := []fleet.Withdrawal{{Version: "1.4.0", Kind: fleet.Recalled, Reason: "it loses orders"}}
	for _, i := range append(all, waits) {
		r.Subscriptions = append(r.Subscriptions, wire.Installation(i))
		m := fleet.Memory{Distribution: i.Distribution, Previous: []string{"0.9.0"}}
		if i.Running == "1.4.0" || i.Target == "1.4.0" {
			m.Withdrawn = recalled
		}
		r.Memories = append(r.Memories, local.Memory(m))
	}
	return r
}

func TestWhatAProviderDecidedIsShown(t *testing.T) {
	narrowed := func(keep ...string) *localv1.GetStatusResponse {
		r := decisions(t)
		all := r.Subscriptions
		r.Subscriptions, r.Memories = nil, nil
		for _, s := range all {
			for _, k := range keep {
				if s.GetDistribution() == k {
					r.Subscriptions = append(r.Subscriptions, s)
				}
			}
		}
		return r
	}
	for _, c := range []struct {
		file, format string
		r            *localv1.GetStatusResponse
		code         int
	}{
		{"status-decided.txt", "table", decisions(t), exitcode.Failed},
		{"status-decided-wide.txt", "wide", decisions(t), exitcode.Failed},
		{"status-decided.json", "json", narrowed("shop", "chat"), exitcode.OK},
		{"status-pinned.txt", "table", narrowed("shop", "mail", "crm", "chat"), exitcode.OK},
	} {
		t.Run(c.file, func(t *testing.T) {
			var out bytes.Buffer
			a := &app{out: &out, now: func() time.Time { return moment }}
			err := a.printStatus(&printer.Printer{Out: &out, Format: c.format}, c.r)
			if got := exitcode.Of(err); got != c.code || exitcode.Message(err) != "" {
				t.Errorf("exit code %d, want %d; %v", got, c.code, err)
			}
			golden(t, c.file, out.Bytes())
		})
	}
	var out bytes.Buffer
	pin := fleet.Pin{Version: "1.2.0", Reason: "year-end freeze", Source: fleet.PinSpoke, Author: "ada"}
	s := decisions(t).GetSubscriptions()[0]
	if err := (&app{out: &out}).printPin(&printer.Printer{Out: &out, Format: "json"}, pin, s, s, false); err != nil {
		t.Error(err)
	}
	golden(t, "pin.json", out.Bytes())
}
