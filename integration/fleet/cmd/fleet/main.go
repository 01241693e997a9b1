// Command fleet is the process behind package fleet: it answers net/rpc on file descriptor 3 and ends when that is
// closed, so that it never outlives who started it. By hand it is good for nothing.
package main

import (
	"context"
	"fmt"
	"net"
	"net/rpc"
	"os"

	"github.com/wheelwright-dev/wheelwright/integration/fleet/bare"
	"github.com/wheelwright-dev/wheelwright/integration/fleet/spokes"
)

func main() {
	if err := serve(); err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

func serve() error {
	conn, err := net.FileConn(os.NewFile(3, "control"))
	if err != nil {
		return fmt.Errorf("no control on file descriptor 3: %w; package fleet starts this program", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	server := rpc.NewServer()
	for name, service := range map[string]any{"Spokes": spokes.New(ctx), "BareServer": &bare.Server{}, "BareClients": &bare.Clients{}} {
		if err := server.RegisterName(name, service); err != nil {
			return err
		}
	}
	server.ServeConn(conn)
	return nil
}
