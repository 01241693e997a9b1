package config

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

const twoPlugins = `version: 1
plugins:
- { name: lead, path: p, sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752, kinds: [canary] }
- { name: chat, path: p, sha256: 60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752, kinds: [notifier] }
`

func TestHowTrafficIsLed(t *testing.T) {
	c, err := Load(write(t, twoPlugins+`canary: { askBefore: [traffic, promotion], evidenceTimeout: 5m }
subscriptions:
- { distribution: shop, variant: app, namespace: shop, canary: { plugin: lead, askBefore: [increase], evidenceTimeout: never } }
- { distribution: news, variant: app, namespace: news, canary: { plugin: none, askBefore: [] } }
- { distribution: mail, variant: app, namespace: mail }
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []Canary
	for _, s := range c.Subscriptions {
		got = append(got, s.Canary)
	}
	want := []Canary{
		{Plugin: "lead", Increase: true, Follow: DefaultFollow},
		{None: true, Evidence: 5 * time.Minute, Follow: DefaultFollow},
		{Traffic: true, Promotion: true, Evidence: 5 * time.Minute, Follow: DefaultFollow},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	c, err = Load(write(t, twoPlugins+`canary: { plugin: none }
subscriptions:
- { distribution: shop, variant: app, namespace: shop, canary: { plugin: lead } }
`))
	if err != nil || c.Subscriptions[0].Canary.None || c.Subscriptions[0].Canary.Plugin != "lead" {
		t.Errorf("one of its own: %+v %v", c.Subscriptions, err)
	}
	if c, err = Load(write(t, "version: 1\n")); err != nil || c.Canary != (Canary{Evidence: DefaultEvidence, Follow: DefaultFollow}) {
		t.Errorf("where the file says nothing: %+v %v", c.Canary, err)
	}
}

func TestAllProblemsOfCanariesAtOnce(t *testing.T) {
	_, err := Load(write(t, twoPlugins+`canary: { plugin: chat, askBefore: [traffic, lunch, [increase]], evidenceTimeout: soon, steps: 5 }
subscriptions:
- { distribution: shop, variant: app, namespace: shop, canary: { plugin: leed, askBefore: traffic, evidenceTimeout: 721h } }
- { distribution: mail, variant: app, namespace: mail, canary: { plugin: [lead], evidenceTimeout: [never] } }
- { distribution: news, variant: app, namespace: news, canary: none }
`))
	if err == nil {
		t.Fatal("want an error")
	}
	for _, want := range []string{
		`line 5: canary.plugin: "chat": the plugin is not of the kind canary`,
		`line 5: canary.askBefore[1]: "lunch": want traffic, increase or promotion`,
		`line 5: canary.askBefore[2]: want text, found a list`,
		`line 5: canary.evidenceTimeout: "soon": want `,
		`line 5: canary.steps: unknown key; known here: askBefore, evidenceTimeout, followTimeout, plugin`,
		`line 7: canary.plugin: "leed": no plugin under ` + "`plugins`" + ` has this name`,
		`line 7: subscriptions[0].canary.askBefore: want a list, found "traffic"`,
		`line 7: subscriptions[0].canary.evidenceTimeout: "721h": want 1s to 720h`,
		`line 8: subscriptions[1].canary.plugin: want text, found a list`,
		`line 8: subscriptions[1].canary.evidenceTimeout: want text, found a list`,
		`line 9: subscriptions[2].canary: want keys and values, found "none"`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("it does not say %s", want)
		}
	}
	if t.Failed() {
		t.Logf("it says\n%v", err)
	}
}
