package spoke

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/apply"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/config"
)

// programs are the plugins of spoke.yaml as it is now, with the credentials that it grants them.
type programs struct {
	*pluginhost.Host
	cluster *apply.Cluster
	log     *slog.Logger
	granted atomic.Pointer[[]config.Plugin]
}

// openPrograms starts none. One that could not be started is said, and is no error: the spoke lives on, and
// what needs the plugin waits for the provider.
func openPrograms(dir string, settings config.Config, cluster *apply.Cluster, log *slog.Logger) (*programs, error) {
	p := &programs{cluster: cluster, log: log}
	p.granted.Store(&settings.Plugins)
	var err error
	p.Host, err = pluginhost.New(pluginhost.Config{
		Dir: filepath.Join(dir, pluginFolder), Plugins: hosted(settings.Plugins), Credentials: p, Version: buildinfo.Version(), Log: log,
	})
	if err != nil {
		return nil, err
	}
	p.inspect()
	return p, nil
}

func (p *programs) inspect() {
	for _, q := range *p.granted.Load() {
		if err := p.Inspect(q.Name); err != nil {
			p.log.Error("a plugin cannot be run", logging.Plugin, q.Name, logging.Error, err)
		}
	}
}

// reload takes a spoke.yaml that has changed. A plugin that is in it as before goes on.
func (p *programs) reload(settings config.Config) error {
	before := p.granted.Swap(&settings.Plugins)
	if err := p.Use(hosted(settings.Plugins)); err != nil {
		p.granted.Store(before)
		return fmt.Errorf("plugins of %s: %w", settings.Path, err)
	}
	p.inspect()
	return nil
}

func hosted(all []config.Plugin) []pluginhost.Plugin {
	var out []pluginhost.Plugin
	for _, p := range all {
		h := pluginhost.Of(p.Plugin)
		h.Kubeconfig = p.Permissions != nil
		out = append(out, h)
	}
	return out
}

// credentialLife is how long a plugin's token lives; the host has it renewed before.
const credentialLife = 15 * time.Minute

// Credentials is a kubeconfig as the account that spoke.yaml grants a plugin.
func (p *programs) Credentials(ctx context.Context, plugin string) (kubeconfig []byte, expires time.Time, err error) {
	all := *p.granted.Load()
	i := slices.IndexFunc(all, func(q config.Plugin) bool { return q.Name == plugin })
	if i < 0 || all[i].Permissions == nil {
		return nil, time.Time{}, fmt.Errorf("spoke.yaml grants %s no permissions", plugin)
	}
	kubeconfig, expires, err = p.cluster.Credentials(ctx, account(plugin, *all[i].Permissions), credentialLife)
	if errors.Is(err, apply.ErrNoNamespace) {
		err = fmt.Errorf("%w: %w", pluginhost.ErrNotYet, err)
	}
	return kubeconfig, expires, err
}

// account is the service account that is there, or one that is the plugin's own.
func account(plugin string, p config.Permissions) apply.Account {
	a := apply.Account{Namespace: p.Namespace, Name: p.ServiceAccount}
	if a.Name == "" {
		a.Name = "wheelwright-plugin-" + plugin
	}
	for _, r := range p.Rules {
		a.Rules = append(a.Rules, apply.AccountRule(r))
	}
	return a
}
