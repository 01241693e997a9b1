// Command hub serves and operates a Wheelwright hub.
package main

import (
	"os"

	"github.com/wheelwright-dev/wheelwright/hub/internal/cli"
	"github.com/wheelwright-dev/wheelwright/pkg/pluginhost"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func main() {
	render.ChildMain()     // this program is its own render child,
	pluginhost.ChildMain() // and its own supervisor of plugins
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
