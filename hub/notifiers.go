package hub

import (
	"context"
	"log/slog"

	"github.com/wheelwright-dev/wheelwright/hub/internal/herald"
	"github.com/wheelwright-dev/wheelwright/pkg/buildinfo"
	"github.com/wheelwright-dev/wheelwright/pkg/logging"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// pluginFolder is where the notifiers of hub.yaml have their working folders.
const pluginFolder = "plugins"

// openNotifiers makes what runs the notifiers, and what tells them. A hub without any has neither. One that
// could not be started is said, and is no error: what it is to be told waits.
func (h *hub) openNotifiers() error {
	if len(h.notifiers) == 0 {
		return h.store.KeepNotices(nil)
	}
	var plugins []pluginhost.Plugin
	var names []string
	for _, p := range h.notifiers {
		plugins, names = append(plugins, pluginhost.Of(p)), append(names, p.Name)
	}
	host, err := pluginhost.New(pluginhost.Config{Dir: h.path(pluginFolder), Plugins: plugins, Version: buildinfo.Version(), Log: h.log})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, func() error { host.Close(); return nil })
	for _, name := range names {
		if err := host.Inspect(name); err != nil {
			h.log.Error("a plugin cannot be run", slog.String(logging.Plugin, name), slog.Any(logging.Error, err))
		}
	}
	h.herald = herald.New(herald.Config{Conductor: h.conductor, Store: h.store, Changes: h.presence, Notifiers: names, Log: h.log,
		Tell: func(ctx context.Context, name string, e *pluginv1.Event) error {
			n, err := host.Notifier(name)
			if err != nil {
				return err
			}
			_, err = n.Notify(ctx, &pluginv1.NotifyRequest{Call: &pluginv1.Call{Id: e.GetId()}, Event: e})
			return err
		}})
	return nil
}
