package realnode

import (
	"fmt"
	"io"
	"net"
	"sync"
)

// forward passes connections to address on to target, until the node stops.
func (n *Node) forward(address, target string) error {
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("lead the node to %s: %w", target, err)
	}
	f := &forwarder{target: target, open: map[net.Conn]bool{}}
	f.wait.Go(func() { f.accept(listener) })
	n.closers = append(n.closers, func() error {
		err := listener.Close()
		f.close()
		return err
	})
	return nil
}

type forwarder struct {
	target string
	wait   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	open   map[net.Conn]bool
}

func (f *forwarder) accept(listener net.Listener) {
	for {
		inner, err := listener.Accept()
		if err != nil {
			return // closed
		}
		f.wait.Go(func() { f.pass(inner) })
	}
}

func (f *forwarder) pass(inner net.Conn) {
	defer inner.Close()
	outer, err := net.Dial("tcp", f.target)
	if err != nil {
		return
	}
	defer outer.Close()
	if !f.keep(inner, outer) {
		return
	}
	defer f.forget(inner, outer)
	var both sync.WaitGroup
	for _, pair := range [][2]net.Conn{{inner, outer}, {outer, inner}} {
		both.Go(func() {
			_, _ = io.Copy(pair[0], pair[1])
			if half, ok := pair[0].(*net.TCPConn); ok {
				_ = half.CloseWrite()
			}
		})
	}
	both.Wait()
}

func (f *forwarder) keep(conns ...net.Conn) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		f.open[c] = true
	}
	return !f.closed
}

func (f *forwarder) forget(conns ...net.Conn) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range conns {
		delete(f.open, c)
	}
}

func (f *forwarder) close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.open {
		c.Close()
	}
	f.mu.Unlock()
	f.wait.Wait()
}
