package config

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// policy reads what stands under `versions`.
func (d *decoder) policy(n *yaml.Node, at string) fleet.Policy {
	var p fleet.Policy
	var pin fleet.Pin
	seen := d.Mapping(n, at, strictyaml.Fields{
		"range": func(n *yaml.Node, key string) {
			p.Range = d.Text(n, key)
			if _, err := fleet.ParseRange(p.Range); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"prereleases": func(n *yaml.Node, key string) { p.Prereleases = d.Flag(n, key) },
		"patch":       func(n *yaml.Node, key string) { p.Patch = d.upgrade(n, key) },
		"minor":       func(n *yaml.Node, key string) { p.Minor = d.upgrade(n, key) },
		"major":       func(n *yaml.Node, key string) { p.Major = d.upgrade(n, key) },
		"pin": func(n *yaml.Node, key string) {
			if pin.Version = d.Text(n, key); pin.Version == "" {
				return
			}
			if _, err := fleet.ParseVersion(pin.Version); err != nil {
				d.Problem(n, key, "%v", err)
			}
		},
		"pinReason": func(n *yaml.Node, key string) { pin.Reason = d.Text(n, key) },
		"pinUntil": func(n *yaml.Node, key string) {
			text := d.Text(n, key)
			if text == "" {
				return
			}
			var err error
			if pin.Until, err = fleet.ParseMoment(text); err != nil { // one that is over is no problem: files grow old
				d.Problem(n, key, "%v", err)
			}
		},
	})
	if pin.Version != "" {
		pin.Source = fleet.PinConfig
		p.Pin = &pin
		return p
	}
	if pin.Reason != "" {
		d.Problem(seen["pinReason"], at+".pinReason", "there is no pin to give a reason for")
	}
	if !pin.Until.IsZero() {
		d.Problem(seen["pinUntil"], at+".pinUntil", "there is no pin that could end")
	}
	return p
}

func (d *decoder) upgrade(n *yaml.Node, at string) fleet.Upgrade {
	text := d.Text(n, at)
	u, err := fleet.ParseUpgrade(text)
	if err != nil || n.Kind == yaml.ScalarNode && text == "" {
		d.Problem(n, at, "%q: want auto, approve or never", text)
	}
	return u
}

// windows reads a list of windows; it takes the place of the default.
func (d *decoder) windows(n *yaml.Node, at string) fleet.Windows {
	var all fleet.Windows
	for i, item := range d.List(n, at) {
		here := fmt.Sprintf("%s[%d]", at, i)
		if item.Kind != yaml.ScalarNode {
			d.Problem(item, here, "want text, found %s", strictyaml.Kind(item))
			continue
		}
		w, err := fleet.ParseWindow(d.Text(item, here))
		if err != nil {
			d.Problem(item, here, "%v", err)
			continue
		}
		all = append(all, w)
	}
	return all
}

func (d *decoder) fromHub(n *yaml.Node, at string, f *FromHub) {
	d.Mapping(n, at, strictyaml.Fields{
		"pins":      func(n *yaml.Node, key string) { f.Pins = d.Flag(n, key) },
		"decisions": func(n *yaml.Node, key string) { f.Decisions = d.Flag(n, key) },
		"rollbacks": func(n *yaml.Node, key string) { yes := d.Flag(n, key); f.Rollbacks = &yes },
	})
}
