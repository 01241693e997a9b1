package wire_test

import (
	"bytes"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/wire"
	syncv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/sync/v1"
)

// A spoke reads the parts that others are sent too, and its own beside them, as the one message that they make.
func TestADesiredStateOfPartsIsTheWholeOne(t *testing.T) {
	offers := func(m *syncv1.DistributionOffers) wire.Offers {
		t.Helper()
		o, err := wire.EncodeOffers(m)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	shop := &syncv1.DistributionOffers{Distribution: "shop", Url: strings.Repeat("u", 300), Offers: []*syncv1.Offer{{Version: "1.0.0", Size: 7}}, Channel: []byte("c")}
	web := &syncv1.DistributionOffers{Distribution: "web"}
	own := &syncv1.DistributionOffers{Pin: &syncv1.HubPin{Version: "1.0.0"}, Orders: []*syncv1.SignedOrder{{Text: []byte("o")}}}
	pinned := proto.CloneOf(shop)
	proto.Merge(pinned, own)
	for name, c := range map[string]struct {
		parts []wire.Offers
		want  []*syncv1.DistributionOffers
	}{
		"nothing": {},
		"one":     {[]wire.Offers{offers(shop)}, []*syncv1.DistributionOffers{shop}},
		"two":     {[]wire.Offers{offers(shop), offers(web)}, []*syncv1.DistributionOffers{shop, web}},
		"own":     {[]wire.Offers{offers(shop).With(offers(own)), offers(shop)}, []*syncv1.DistributionOffers{pinned, shop}},
		"empty":   {[]wire.Offers{offers(&syncv1.DistributionOffers{})}, []*syncv1.DistributionOffers{{}}},
	} {
		for _, revision := range []uint64{1, 1 << 63} {
			got := &syncv1.ConnectResponse{}
			if err := proto.Unmarshal(wire.Desired{Revision: revision, Parts: c.parts}.Encode().Materialize(), got); err != nil {
				t.Fatal(name, err)
			}
			want := &syncv1.ConnectResponse{Body: &syncv1.ConnectResponse_Desired{Desired: &syncv1.DesiredState{Revision: revision, Distributions: c.want}}}
			if !proto.Equal(got, want) {
				t.Errorf("%s: got %v, want %v", name, got, want)
			}
		}
	}
	if a, b := offers(shop).With(offers(own)), offers(shop); a.Sum == b.Sum || b.Sum != offers(shop).Sum || a.Sum != offers(shop).With(offers(own)).Sum {
		t.Error("the fingerprint is not the content's")
	}
	if _, err := wire.EncodeOffers(&syncv1.DistributionOffers{Distribution: "\xff"}); err == nil {
		t.Error("text that no spoke could read was encoded")
	}
}

func TestAPieceOfABundleIsNotCopied(t *testing.T) {
	head := &syncv1.FetchBundleResponse{Encoding: "sha256:e", Base: "sha256:b", Size: 9, Offset: 3}
	for _, data := range [][]byte{nil, []byte("content"), bytes.Repeat([]byte("x"), 300)} {
		encoded, err := wire.Chunk(head, data)
		if err != nil {
			t.Fatal(err)
		}
		want := proto.CloneOf(head)
		want.Data = data
		got := &syncv1.FetchBundleResponse{}
		if err := proto.Unmarshal(encoded.Materialize(), got); err != nil || !proto.Equal(got, want) {
			t.Errorf("%d bytes came as %v, %v", len(data), got, err)
		}
		if n := len(data); n > 0 && &encoded[1].ReadOnlyData()[0] != &data[0] {
			t.Errorf("%d bytes were copied", n)
		}
	}
}
