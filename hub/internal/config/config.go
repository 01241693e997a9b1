// Package config reads hub.yaml, the optional file of a hub. It is strict: every problem is reported
// at once, each with its key. It applies no defaults; a zero field was not written.
package config

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
	"github.com/wheelwright-dev/wheelwright/pkg/plan"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginlist"
)

// Config is what hub.yaml says.
type Config struct {
	Listen    string        // HOST:PORT
	Advertise []string      // HOST or HOST:PORT; spokes are told the first, the certificate names all
	Metrics   string        // HOST:PORT
	Poll      time.Duration // between polls of a distribution that names no interval
	Heartbeat time.Duration // of the spokes' streams
	// RenewAfterExpiry is for how long after its end a spoke's certificate may be renewed; nil: not written.
	RenewAfterExpiry *time.Duration
	// ConnectionAge is how old a connection of a spoke or an operator gets; 0: as old as it likes; nil: not written.
	ConnectionAge *time.Duration
	BundleRate    int64 // bytes of bundles that are sent in a second
	BundleFetches int64 // bundles that are sent at once
	LogLevel      string
	LogFormat     string
	Git           gitrepo.Credentials  // to reach the distributions' repositories
	Rollouts      map[string]plan.Plan // of new releases, by distribution; wins over what a release brings
	Plugins       []pluginlist.Plugin  // notifiers
	OIDC          OIDC                 // whose tokens are taken; zero: nobody's
	History       History              // what is kept of the past
}

// History bounds what is kept of the past; zero: not written.
type History struct {
	Events int           // the newest so many
	Age    time.Duration // and none that is older
}

// leastAge of a connection: a fleet that comes back all the time costs more than it is good for.
const leastAge = 10 * time.Minute

// Problems are all that is wrong with a file.
type Problems struct {
	File string
	List []string // "key.path: what is wrong"
}

func (p *Problems) Error() string {
	if len(p.List) == 1 {
		return fmt.Sprintf("%s: %s", p.File, p.List[0])
	}
	return fmt.Sprintf("%s has %d problems:\n  %s", p.File, len(p.List), strings.Join(p.List, "\n  "))
}

// Load reads the file at path.
func Load(path string) (Config, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Config{}, fmt.Errorf("read hub configuration: %w; correct --config or leave it away", err)
	}
	return Parse(path, data)
}

// Parse reads the text of the file that is called name in errors.
func Parse(name string, data []byte) (Config, error) {
	var root map[string]any
	if err := yaml.UnmarshalStrict(data, &root); err != nil {
		return Config{}, &Problems{File: name, List: []string{strings.TrimPrefix(err.Error(), "error converting YAML to JSON: ")}}
	}
	d := &decoder{dir: filepath.Dir(name)}
	top := d.section("", root, "version", "listen", "advertise", "metrics", "poll", "heartbeat", "renewAfterExpiry", "connectionAge", "bundles", "history", "log", "git", "rollouts", "plugins", "oidc")
	if v, ok := top["version"]; !ok {
		d.problem("version", "is missing; write `version: 1` first")
	} else if n, ok := v.(float64); !ok || n != 1 {
		d.problem("version", "is %v, this hub reads version 1", v)
	}
	c := Config{
		Listen:    d.address("listen", top["listen"], true),
		Metrics:   d.address("metrics", top["metrics"], true),
		Advertise: d.hosts("advertise", top["advertise"]),
		Poll:      d.duration("poll", top["poll"], time.Second, 24*time.Hour),
		Heartbeat: d.duration("heartbeat", top["heartbeat"], time.Second, 5*time.Minute),
		Git:       d.credentials("git", top["git"]),
		Rollouts:  d.plans("rollouts", top["rollouts"]),
		Plugins:   d.plugins("plugins", data),
		OIDC:      d.oidc("oidc", top["oidc"]),
		History:   d.history("history", top["history"]),
	}
	if v, ok := top["renewAfterExpiry"]; ok && v != nil {
		t := d.duration("renewAfterExpiry", v, 0, 366*24*time.Hour)
		c.RenewAfterExpiry = &t
	}
	if v, ok := top["connectionAge"]; ok && v != nil {
		t := d.duration("connectionAge", v, 0, 366*24*time.Hour)
		if t > 0 && t < leastAge {
			d.problem("connectionAge", "%v: want at least %v, or 0s for never", t, leastAge)
		}
		c.ConnectionAge = &t
	}
	if v, ok := top["bundles"]; ok && v != nil {
		m, ok := v.(map[string]any)
		if !ok {
			d.problem("bundles", "want a mapping with bytesPerSecond and fetches")
		}
		bundles := d.section("bundles", m, "bytesPerSecond", "fetches")
		c.BundleRate = d.number("bundles.bytesPerSecond", bundles["bytesPerSecond"], 64<<10, 1<<40)
		c.BundleFetches = d.number("bundles.fetches", bundles["fetches"], 1, 1<<20)
	}
	if v, ok := top["log"]; ok && v != nil {
		m, ok := v.(map[string]any)
		if !ok {
			d.problem("log", "want a mapping with level and format")
		}
		log := d.section("log", m, "level", "format")
		c.LogLevel = d.oneOf("log.level", log["level"], "debug", "info", "warn", "error")
		c.LogFormat = d.oneOf("log.format", log["format"], "text", "json")
	}
	if len(d.problems) > 0 {
		return Config{}, &Problems{File: name, List: d.problems}
	}
	return c, nil
}

// decoder collects problems while it reads values. Absent values are nil and read as zero.
type decoder struct {
	dir      string // of the file: relative paths start here
	problems []string
}

func (d *decoder) problem(key, format string, args ...any) {
	d.problems = append(d.problems, key+": "+fmt.Sprintf(format, args...))
}

// section reports the keys of m that are not known.
func (d *decoder) section(path string, m map[string]any, known ...string) map[string]any {
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if !slices.Contains(known, k) {
			key := strings.TrimPrefix(path+"."+k, ".")
			d.problem(key, "unknown key; known here: %s", strings.Join(known, ", "))
		}
	}
	return m
}

func (d *decoder) text(key string, v any) (string, bool) {
	if v == nil {
		return "", false
	}
	s, ok := v.(string)
	if !ok {
		d.problem(key, "want text, got %v", v)
	}
	return s, ok && s != ""
}

func (d *decoder) address(key string, v any, listening bool) string {
	s, ok := d.text(key, v)
	if !ok {
		return ""
	}
	if err := checkAddress(s, listening); err != nil {
		d.problem(key, "%v", err)
	}
	return s
}

func checkAddress(s string, listening bool) error {
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return fmt.Errorf("%q: want HOST:PORT", s)
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || (n == 0 && !listening) {
		return fmt.Errorf("%q: want a port number", s)
	}
	if host == "" && !listening {
		return fmt.Errorf("%q: want a host before the port", s)
	}
	return nil
}

// CheckAdvertised accepts HOST and HOST:PORT that others can dial.
func CheckAdvertised(s string) error {
	if s == "" {
		return errors.New("is empty")
	}
	if !strings.Contains(s, ":") || net.ParseIP(s) != nil {
		return nil
	}
	return checkAddress(s, false)
}

func (d *decoder) hosts(key string, v any) []string {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if one, text := v.(string); text { // of one host the brackets may be left out
		list, ok = []any{one}, true
	}
	if !ok {
		d.problem(key, "want a list of HOST or HOST:PORT, got %v", v)
		return nil
	}
	var hosts []string
	for n, item := range list {
		at := fmt.Sprintf("%s[%d]", key, n)
		s, ok := item.(string)
		if !ok {
			d.problem(at, "want text, got %v", item)
			continue
		}
		if err := CheckAdvertised(s); err != nil {
			d.problem(at, "%v", err)
		}
		hosts = append(hosts, s)
	}
	return hosts
}

func (d *decoder) duration(key string, v any, least, most time.Duration) time.Duration {
	s, ok := d.text(key, v)
	if !ok {
		return 0
	}
	t, err := time.ParseDuration(s)
	if err != nil {
		d.problem(key, "%q: want a duration such as 30s or 5m", s)
	} else if t < least || t > most {
		d.problem(key, "%v: want %v to %v", t, least, most)
	}
	return t
}

func (d *decoder) number(key string, v any, least, most int64) int64 {
	if v == nil {
		return 0
	}
	n, ok := v.(float64)
	if !ok || n != float64(int64(n)) || int64(n) < least || int64(n) > most {
		d.problem(key, "%v: want a whole number, %d to %d", v, least, most)
		return 0
	}
	return int64(n)
}

func (d *decoder) oneOf(key string, v any, words ...string) string {
	s, ok := d.text(key, v)
	if ok && !slices.Contains(words, s) {
		d.problem(key, "%q: want %s", s, strings.Join(words, ", "))
	}
	return s
}

func (d *decoder) history(key string, v any) (h History) {
	if v == nil {
		return h
	}
	m, ok := v.(map[string]any)
	if !ok {
		d.problem(key, "want a mapping with events and age")
		return h
	}
	d.section(key, m, "events", "age")
	const least, most = 1000, 100_000_000
	if n, ok := m["events"].(float64); ok && n == float64(int(n)) && n >= least && n <= most {
		h.Events = int(n)
	} else if m["events"] != nil {
		d.problem(key+".events", "%v: want a number from %d to %d", m["events"], least, most)
	}
	h.Age = d.duration(key+".age", m["age"], time.Hour, 100*366*24*time.Hour)
	return h
}

// plans reads the plan of each distribution; pkg/plan names what is wrong with one by keys below its own.
func (d *decoder) plans(key string, v any) map[string]plan.Plan {
	if v == nil {
		return nil
	}
	m, ok := v.(map[string]any)
	if !ok {
		d.problem(key, "want a mapping from a distribution's name to its plan, got %v", v)
		return nil
	}
	all := make(map[string]plan.Plan, len(m))
	for _, name := range slices.Sorted(maps.Keys(m)) {
		at := key + "." + name
		if err := fleet.CheckDistributionName(name); err != nil {
			d.problem(at, "%v", err)
		}
		text, err := yaml.Marshal(m[name])
		if err == nil {
			all[name], err = plan.Parse(text)
		}
		var wrong plan.Problems
		switch {
		case errors.As(err, &wrong):
			for _, problem := range wrong {
				d.problems = append(d.problems, plan.Below(at, problem))
			}
		case err != nil:
			d.problem(at, "%v", err)
		}
	}
	return all
}

// credentials reads how git repositories are reached; the files that it names are tried.
func (d *decoder) credentials(key string, v any) gitrepo.Credentials {
	if v == nil {
		return nil
	}
	list, ok := v.([]any)
	if !ok {
		d.problem(key, "want a list of entries, each with a url")
		return nil
	}
	all := make(gitrepo.Credentials, len(list))
	for n, item := range list {
		at := fmt.Sprintf("%s[%d]", key, n)
		entry, ok := item.(map[string]any)
		if !ok {
			d.problem(at, "want a mapping with url and files")
			return nil
		}
		d.section(at, entry, gitrepo.CredentialKeys()...)
		for _, k := range gitrepo.CredentialKeys() {
			field, file := all[n].Field(k)
			if *field, ok = d.text(at+"."+k, entry[k]); ok && file {
				*field = d.local(*field)
			}
		}
	}
	for _, p := range all.Check() {
		d.problem(fmt.Sprintf("%s[%d].%s", key, p.Index, p.Key), "%s", p.Message)
	}
	return all
}
