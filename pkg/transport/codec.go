package transport

import (
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/encoding/proto"
	"google.golang.org/grpc/mem"
)

// Codec is protobuf, and lets through what was encoded before: a mem.BufferSlice is a whole message, which the hub
// encodes once and sends on thousands of streams. Its buffers must be ones whose Free does nothing, such as
// mem.SliceBuffer, since each of the sends frees them.
type Codec struct{}

var protobuf = encoding.GetCodecV2(proto.Name)

// Marshal implements encoding.CodecV2.
func (Codec) Marshal(v any) (mem.BufferSlice, error) {
	if encoded, ok := v.(mem.BufferSlice); ok {
		return encoded, nil
	}
	return protobuf.Marshal(v)
}

// Unmarshal implements encoding.CodecV2.
func (Codec) Unmarshal(data mem.BufferSlice, v any) error { return protobuf.Unmarshal(data, v) }

// Name implements encoding.CodecV2.
func (Codec) Name() string { return proto.Name }
