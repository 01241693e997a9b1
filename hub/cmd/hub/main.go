// Command hub serves and operates a Wheelwright hub.
package main

import (
	"os"

	"github.com/wheelwright-dev/wheelwright/hub/internal/cli"
	"github.com/wheelwright-dev/wheelwright/pkg/render"
)

func main() {
	render.ChildMain() // does not return in a render child
	os.Exit(cli.Main(os.Args[1:], os.Stdout, os.Stderr))
}
