package pluginwire

import (
	"context"
	"fmt"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/types/known/emptypb"
)

// Stdio copies what the process writes to its standard streams once go-plugin has put pipes in their
// place: where nobody reads those, a plugin that prints stands still. It returns when the stream ends;
// a plugin of another make has no such service.
func Stdio(ctx context.Context, conn *grpc.ClientConn, stdout, stderr io.Writer) error {
	stream, err := conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/plugin.GRPCStdio/StreamStdio")
	if err != nil {
		return err
	}
	if err := stream.SendMsg(&emptypb.Empty{}); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		// The message's own type is internal to go-plugin: its fields are read as an Empty's unknown ones.
		var m emptypb.Empty
		if err := stream.RecvMsg(&m); err != nil {
			return err
		}
		channel, data, err := stdioData(m.ProtoReflect().GetUnknown())
		if err != nil {
			return err
		}
		w := stdout
		if channel == 2 {
			w = stderr
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
}

// stdioData reads {channel = 1: enum, data = 2: bytes}.
func stdioData(raw []byte) (channel uint64, data []byte, err error) {
	for len(raw) > 0 {
		number, kind, n := protowire.ConsumeTag(raw)
		if n < 0 {
			return 0, nil, fmt.Errorf("standard streams: %w", protowire.ParseError(n))
		}
		raw = raw[n:]
		switch {
		case number == 1 && kind == protowire.VarintType:
			channel, n = protowire.ConsumeVarint(raw)
		case number == 2 && kind == protowire.BytesType:
			data, n = protowire.ConsumeBytes(raw)
		default:
			n = protowire.ConsumeFieldValue(number, kind, raw)
		}
		if n < 0 {
			return 0, nil, fmt.Errorf("standard streams: %w", protowire.ParseError(n))
		}
		raw = raw[n:]
	}
	return channel, data, nil
}
