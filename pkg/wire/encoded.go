package wire

import (
	"fmt"
	"hash/fnv"

	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// Fields of ConnectResponse and DesiredState. A message's fields may come in any order and in pieces, so that what
// many streams are sent is encoded once, and what is one stream's own is put beside it.
const (
	desiredField       = 2 // ConnectResponse.desired
	revisionField      = 1 // DesiredState.revision
	distributionsField = 2 // DesiredState.distributions
)

// dataField is FetchBundleResponse.data.
const dataField = 1

// Chunk makes a FetchBundleResponse that carries data, which is not copied, beside what head says.
func Chunk(head *syncv1.FetchBundleResponse, data []byte) (mem.BufferSlice, error) {
	out, err := proto.Marshal(head)
	if err != nil {
		return nil, fmt.Errorf("encode a piece of a bundle: %w", err)
	}
	if len(data) == 0 {
		return mem.BufferSlice{mem.SliceBuffer(out)}, nil
	}
	out = protowire.AppendVarint(protowire.AppendTag(out, dataField, protowire.BytesType), uint64(len(data)))
	return mem.BufferSlice{mem.SliceBuffer(out), mem.SliceBuffer(data)}, nil
}

// Encode encodes a message once, for as many streams as like. The buffer has no owner: freeing it does nothing, so
// that it may be sent, and be on its way, in any number of places at a time.
func Encode(m proto.Message) (mem.BufferSlice, error) {
	data, err := proto.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.ProtoReflect().Descriptor().Name(), err)
	}
	return mem.BufferSlice{mem.SliceBuffer(data)}, nil
}

// Offers are encoded DistributionOffers and the fingerprint of their content. They are shared and never changed.
type Offers struct {
	Sum  uint64
	data [][]byte
	size int
}

// EncodeOffers encodes what is offered of one distribution.
func EncodeOffers(m *syncv1.DistributionOffers) (Offers, error) {
	data, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return Offers{}, fmt.Errorf("encode the offers of %s: %w", m.GetDistribution(), err)
	}
	h := fnv.New64a()
	h.Write(data)
	return Offers{Sum: h.Sum64(), data: [][]byte{data}, size: len(data)}, nil
}

// With are these offers and what is one cluster's own; they share what they are made of.
func (o Offers) With(own Offers) Offers {
	h := fnv.New64a()
	h.Write(protowire.AppendFixed64(protowire.AppendFixed64(nil, o.Sum), own.Sum))
	return Offers{Sum: h.Sum64(), data: append(o.data[:len(o.data):len(o.data)], own.data...), size: o.size + own.size}
}

// Desired is a DesiredState that is made of encoded parts.
type Desired struct {
	Revision uint64
	Parts    []Offers // by distribution
}

// Encode makes the ConnectResponse that carries it. Its parts are not copied.
func (d Desired) Encode() mem.BufferSlice {
	var own [64]byte // of each of the heads, and more than enough
	size := protowire.SizeTag(revisionField) + protowire.SizeVarint(d.Revision)
	for _, p := range d.Parts {
		size += protowire.SizeTag(distributionsField) + protowire.SizeBytes(p.size)
	}
	head := protowire.AppendTag(own[:0:len(own)], desiredField, protowire.BytesType)
	head = protowire.AppendVarint(head, uint64(size))
	head = protowire.AppendTag(head, revisionField, protowire.VarintType)
	head = protowire.AppendVarint(head, d.Revision)
	out := make(mem.BufferSlice, 0, 2*len(d.Parts)+1)
	for _, p := range d.Parts {
		head = protowire.AppendTag(head, distributionsField, protowire.BytesType)
		out = append(out, mem.SliceBuffer(protowire.AppendVarint(head, uint64(p.size))))
		for _, piece := range p.data {
			if len(piece) > 0 {
				out = append(out, mem.SliceBuffer(piece))
			}
		}
		head = nil
	}
	if len(d.Parts) == 0 {
		out = append(out, mem.SliceBuffer(head))
	}
	return out
}
