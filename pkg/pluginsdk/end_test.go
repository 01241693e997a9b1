package pluginsdk

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/emptypb"
)

// A host reads go-plugin's standard output as long as the process is there. That delays no end, and what is
// in flight is answered.
func TestItEndsWithItsLastCall(t *testing.T) {
	serving, over := context.WithCancel(t.Context())
	begun, finish := make(chan string, 2), make(chan struct{})
	server, conn := serve(t, func(_ any, ss grpc.ServerStream) error {
		method, _ := grpc.MethodFromServerStream(ss)
		begun <- method
		if strings.HasPrefix(method, "/plugin.") {
			<-ss.Context().Done()
			return nil
		}
		<-finish
		return ss.SendMsg(&emptypb.Empty{})
	}, grpc.ChainStreamInterceptor(asideUntil(serving)))
	ask := func(method string) grpc.ClientStream {
		stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, method)
		if err == nil {
			err = stream.SendMsg(&emptypb.Empty{})
		}
		if err != nil {
			t.Fatal(err)
		}
		<-begun
		return stream
	}
	ask("/plugin.GRPCStdio/StreamStdio")
	run := ask("/wheelwright.plugin.v1.ConformanceService/Run")
	over()
	ended := make(chan struct{})
	go func() {
		if !end(server, time.Hour) {
			t.Error("it did not end by itself")
		}
		close(ended)
	}()
	close(finish)
	if err := run.RecvMsg(&emptypb.Empty{}); err != nil {
		t.Errorf("the call in flight: %v", err)
	}
	<-ended
}

// A call that nobody ends is cancelled; one that does not mind even that is left behind.
func TestItEndsAnyhow(t *testing.T) {
	for name, minds := range map[string]bool{"cancelled": true, "deaf": false} {
		begun, block := make(chan struct{}), make(chan struct{})
		server, conn := serve(t, func(_ any, ss grpc.ServerStream) error {
			close(begun)
			var over <-chan struct{}
			if minds {
				over = ss.Context().Done()
			}
			select {
			case <-over:
			case <-block:
			}
			return nil
		})
		if _, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true}, "/wheelwright.plugin.v1.ConformanceService/Run"); err != nil {
			t.Fatal(err)
		}
		<-begun
		if ended := end(server, time.Millisecond); ended && !minds {
			t.Errorf("%s: it ended while a call ran", name)
		}
		close(block)
	}
}

// serve answers whatever is asked with handle.
func serve(t *testing.T, handle grpc.StreamHandler, options ...grpc.ServerOption) (*grpc.Server, *grpc.ClientConn) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(options, grpc.UnknownServiceHandler(handle))...)
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()
	conn, err := grpc.NewClient(listener.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return server, conn
}
