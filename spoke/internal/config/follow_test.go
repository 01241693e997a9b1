package config

import (
	"errors"
	"testing"
	"time"
)

func TestHowLongOthersMayLead(t *testing.T) {
	c, err := Load(write(t, `version: 1
canary: {followTimeout: 45m}
subscriptions:
- {distribution: shop, variant: v, namespace: shop}
- {distribution: mail, variant: v, namespace: mail, canary: {followTimeout: 720h}}
`))
	if err != nil {
		t.Fatal(err)
	}
	if got := [...]time.Duration{c.Canary.Follow, c.Subscriptions[0].Canary.Follow, c.Subscriptions[1].Canary.Follow, DefaultCanary().Follow}; got != [...]time.Duration{45 * time.Minute, 45 * time.Minute, 720 * time.Hour, 2 * time.Hour} {
		t.Errorf("got %v", got)
	}
	for given, want := range map[string]string{
		"never": `line 3: canary.followTimeout: "never": want a duration with its unit, such as 90s or 24h`,
		"0s":    `line 3: canary.followTimeout: "0s": want 1s to 720h`,
		"721h":  `line 3: canary.followTimeout: "721h": want 1s to 720h`,
		"[2h]":  "line 3: canary.followTimeout: want text, found a list",
	} {
		_, err := Load(write(t, "version: 1\ncanary:\n  followTimeout: "+given+"\nsubscriptions: []\n"))
		var all *Error
		if !errors.As(err, &all) || len(all.Problems) != 1 || all.Problems[0].String() != want {
			t.Errorf("%s: got %v, want %s", given, err, want)
		}
	}
}
