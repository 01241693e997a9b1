package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
)

// policy reads what stands under `versions`.
func (d *decoder) policy(n *yaml.Node, at string) fleet.Policy {
	var p fleet.Policy
	var pin fleet.Pin
	seen := d.mapping(n, at, fields{
		"range": func(n *yaml.Node, key string) {
			p.Range = d.text(n, key)
			if _, err := fleet.ParseRange(p.Range); err != nil {
				d.problem(n, key, "%v", err)
			}
		},
		"prereleases": func(n *yaml.Node, key string) { p.Prereleases = d.flag(n, key) },
		"patch":       func(n *yaml.Node, key string) { p.Patch = d.upgrade(n, key) },
		"minor":       func(n *yaml.Node, key string) { p.Minor = d.upgrade(n, key) },
		"major":       func(n *yaml.Node, key string) { p.Major = d.upgrade(n, key) },
		"pin": func(n *yaml.Node, key string) {
			if pin.Version = d.text(n, key); pin.Version == "" {
				return
			}
			if _, err := fleet.ParseVersion(pin.Version); err != nil {
				d.problem(n, key, "%v", err)
			}
		},
		"pinReason": func(n *yaml.Node, key string) { pin.Reason = d.text(n, key) },
		"pinUntil": func(n *yaml.Node, key string) {
			text := d.text(n, key)
			if text == "" {
				return
			}
			var err error
			if pin.Until, err = fleet.ParseMoment(text); err != nil { // one that is over is no problem: files grow old
				d.problem(n, key, "%v", err)
			}
		},
	})
	if pin.Version != "" {
		pin.Source = fleet.PinConfig
		p.Pin = &pin
		return p
	}
	if pin.Reason != "" {
		d.problem(seen["pinReason"], at+".pinReason", "there is no pin to give a reason for")
	}
	if !pin.Until.IsZero() {
		d.problem(seen["pinUntil"], at+".pinUntil", "there is no pin that could end")
	}
	return p
}

func (d *decoder) upgrade(n *yaml.Node, at string) fleet.Upgrade {
	text := d.text(n, at)
	u, err := fleet.ParseUpgrade(text)
	if err != nil || n.Kind == yaml.ScalarNode && text == "" {
		d.problem(n, at, "%q: want auto, approve or never", text)
	}
	return u
}

// windows reads a list of windows; it takes the place of the default.
func (d *decoder) windows(n *yaml.Node, at string) fleet.Windows {
	var all fleet.Windows
	for i, item := range d.list(n, at) {
		here := fmt.Sprintf("%s[%d]", at, i)
		if item.Kind != yaml.ScalarNode {
			d.problem(item, here, "want text, found %s", kind(item))
			continue
		}
		w, err := fleet.ParseWindow(d.text(item, here))
		if err != nil {
			d.problem(item, here, "%v", err)
			continue
		}
		all = append(all, w)
	}
	return all
}

func (d *decoder) fromHub(n *yaml.Node, at string, f *FromHub) {
	d.mapping(n, at, fields{
		"pins":      func(n *yaml.Node, key string) { f.Pins = d.flag(n, key) },
		"decisions": func(n *yaml.Node, key string) { f.Decisions = d.flag(n, key) },
	})
}

func (d *decoder) flag(n *yaml.Node, at string) (v bool) {
	if n.Kind != yaml.ScalarNode || n.Tag != "!!bool" || n.Decode(&v) != nil {
		d.problem(n, at, "want true or false")
	}
	return v
}
