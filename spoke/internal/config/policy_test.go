package config

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

func TestWhatAProviderDecides(t *testing.T) {
	c, err := Load(write(t, `version: 1
subscriptions:
- distribution: shop
  variant: v
  namespace: shop
  versions: {range: 1.x, patch: auto, minor: approve, major: never, pin: 1.2.0, pinReason: audit, pinUntil: 2027-01-31}
  windows: ["Sat,Sun 00:00-24:00 UTC"]
  fromHub: {pins: false}
- {distribution: mail, variant: v, namespace: mail, versions: {pin: 1.0.0, pinUntil: "2027-01-31T18:00:00+01:00"}, fromHub: {decisions: false}}
- {distribution: chat, variant: v, namespace: chat, windows: []}
windows:
- Mon-Fri 22:00-04:00 Europe/Berlin
- daily 01:00-02:00 UTC
fromHub: {decisions: true}
`))
	if err != nil {
		t.Fatal(err)
	}
	windows := func(texts ...string) fleet.Windows {
		ws, err := fleet.ParseWindows(texts)
		if err != nil {
			t.Fatal(err)
		}
		return ws
	}
	ours := windows("Mon-Fri 22:00-04:00 Europe/Berlin", "daily 01:00-02:00 UTC")
	for n, want := range []struct {
		policy fleet.Policy
		hub    FromHub
	}{
		{fleet.Policy{Range: "1.x", Patch: fleet.Automatic, Minor: fleet.AskFirst, Major: fleet.NeverTaken, Windows: windows("Sat,Sun 00:00-24:00 UTC"),
			Pin: &fleet.Pin{Version: "1.2.0", Reason: "audit", Source: "spoke.yaml", Until: time.Date(2027, 1, 31, 0, 0, 0, 0, time.UTC)}}, FromHub{Decisions: true}},
		{fleet.Policy{Windows: ours, Pin: &fleet.Pin{Version: "1.0.0", Source: "spoke.yaml", Until: time.Date(2027, 1, 31, 17, 0, 0, 0, time.UTC)}}, FromHub{Pins: true}},
		{fleet.Policy{}, FromHub{Pins: true, Decisions: true}},
	} {
		if got := c.Subscriptions[n]; !got.Policy.Equal(want.policy) || got.FromHub != want.hub {
			t.Errorf("%s: got %+v %+v, want %+v", got.Distribution, got.Policy, got.FromHub, want)
		}
	}
	if !reflect.DeepEqual(c.Windows.Texts(), ours.Texts()) || c.FromHub != (FromHub{Pins: true, Decisions: true}) {
		t.Errorf("the defaults are %v %v", c.Windows, c.FromHub)
	}
}

func TestProblemsOfWhatAProviderDecides(t *testing.T) {
	_, err := Load(write(t, `version: 1
windows:
- Mon-Fri 22:00-04:00
- {days: Mon}
- Mon-Fry 22:00-04:00 UTC
fromHub: {pins: sometimes, approvals: true}
subscriptions:
- distribution: shop
  variant: v
  namespace: shop
  windows: daily 01:00-02:00 UTC
  fromHub: true
  versions:
    patch: always
    minor: true
    major: ""
    pinUntil: 2027-01-31
- distribution: mail
  variant: v
  namespace: mail
  versions: {pin: 1.0.0, pinUntil: tomorrow}
  windows: [daily 25:00-02:00 UTC, daily 01:00-02:00 Europe/Berlino]
`))
	var all *Error
	if !errors.As(err, &all) {
		t.Fatalf("got %v", err)
	}
	var got []string
	for _, p := range all.Problems {
		got = append(got, p.String())
	}
	want := []string{
		`line 3: windows[0]: window "Mon-Fri 22:00-04:00": it names no time zone: add one, such as Europe/Berlin or UTC`,
		`line 4: windows[1]: want text, found keys and values`,
		`line 5: windows[2]: window "Mon-Fry 22:00-04:00 UTC": "Mon-Fry" names no days: want Mon, Tue, Wed, Thu, Fri, Sat, Sun, a stretch such as Mon-Fri, several with commas, or daily`,
		`line 6: fromHub.pins: want true or false, found "sometimes"`,
		`line 6: fromHub.approvals: unknown key; known here: decisions, pins, rollbacks`,
		`line 11: subscriptions[0].windows: want a list, found "daily 01:00-02:00 UTC"`,
		`line 12: subscriptions[0].fromHub: want keys and values, found "true"`,
		`line 14: subscriptions[0].versions.patch: "always": want auto, approve or never`,
		`line 15: subscriptions[0].versions.minor: "true": want auto, approve or never`,
		`line 16: subscriptions[0].versions.major: "": want auto, approve or never`,
		`line 17: subscriptions[0].versions.pinUntil: there is no pin that could end`,
		`line 21: subscriptions[1].versions.pinUntil: "tomorrow": want a date such as 2027-01-31 (its beginning, UTC) or a time such as 2027-01-31T18:00:00+01:00`,
		`line 22: subscriptions[1].windows[0]: window "daily 25:00-02:00 UTC": "25:00" is no time of day: want HH:MM from 00:00 to 24:00`,
		`line 22: subscriptions[1].windows[1]: window "daily 01:00-02:00 Europe/Berlino": time zone "Europe/Berlino" is not known: want a place of the IANA database, such as Europe/Berlin, or UTC`,
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}
