package config

import (
	"fmt"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/wheelwright-dev/wheelwright/pkg/strictyaml"
)

// NoCanary stands in the place of a plugin's name.
const NoCanary = "none"

// canary reads how traffic is led.
func (d *decoder) canary(n *yaml.Node, at string, c *Canary) {
	d.Mapping(n, at, strictyaml.Fields{
		"plugin": func(n *yaml.Node, key string) {
			c.Plugin, c.None = d.Text(n, key), false
			if c.Plugin == NoCanary {
				c.Plugin, c.None = "", true
				return
			}
			d.leaders = append(d.leaders, n)
		},
		"askBefore": func(n *yaml.Node, key string) {
			c.Traffic, c.Increase, c.Promotion = false, false, false
			for i, item := range d.List(n, key) {
				switch word := d.Text(item, fmt.Sprintf("%s[%d]", key, i)); word {
				case "traffic":
					c.Traffic = true
				case "increase":
					c.Increase = true
				case "promotion":
					c.Promotion = true
				default:
					d.Problem(item, fmt.Sprintf("%s[%d]", key, i), "%q: want traffic, increase or promotion", word)
				}
			}
		},
		"evidenceTimeout": func(n *yaml.Node, key string) {
			if n.Kind == yaml.ScalarNode && n.Value == "never" {
				c.Evidence = 0
				return
			}
			c.Evidence = d.Duration(n, key, time.Second, 30*24*time.Hour)
		},
		"followTimeout": func(n *yaml.Node, key string) { c.Follow = d.Duration(n, key, time.Second, 30*24*time.Hour) },
	})
}
