package server

import (
	"errors"
	"log/slog"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wheelwright-dev/wheelwright/pkg/logging"
)

// reserve is how many of the files that this process may open are kept from connections: for the store, bundles,
// repositories and what the hub runs beside itself.
const (
	reservedFiles = 256
	reservedShare = 4 // at most one file of so many
)

// files is how many this process may open. Go's runtime has raised the soft limit to the hard one by now.
func files() int64 {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 1 << 20 // not on a system that the hub runs on
	}
	return int64(min(limit.Cur, 1<<30))
}

// connectionsOf is how many of so many files may be connections.
func connectionsOf(files int64) int64 { return files - min(reservedFiles, files/reservedShare) }

// saidEvery is how often the log repeats what keeps connections out.
const saidEvery = time.Minute

// occasional is said once in a while, however often it happens.
type occasional struct{ last atomic.Int64 }

func (o *occasional) due(now time.Time) bool {
	last := o.last.Load()
	return (last == 0 || now.UnixNano()-last >= int64(saidEvery)) && o.last.CompareAndSwap(last, now.UnixNano())
}

// MoreFiles is what a person does where the files that this process may open are too few.
const MoreFiles = "raise it with `ulimit -n 65536` before `hub serve`, or LimitNOFILE=65536 in its systemd unit"

// sockets is the listener. What it cannot accept it says; who serves it waits a little after each such error, and
// those who are connected go on.
type sockets struct {
	net.Listener
	log  *slog.Logger
	said occasional
}

func (l *sockets) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if (errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)) && l.said.due(time.Now()) {
		l.log.Error("no new connections: no more files can be opened; "+MoreFiles, slog.Any(logging.Error, err))
	}
	return conn, err
}
