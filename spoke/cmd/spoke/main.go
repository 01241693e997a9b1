// Command spoke takes a vendor's releases on a provider's cluster: see `spoke --help`.
package main

import (
	"os"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/cli"
)

func main() {
	render.ChildMain()     // this program is its own render child,
	pluginhost.ChildMain() // and its own supervisor of plugins
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
