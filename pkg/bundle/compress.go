package bundle

import (
	"errors"
	"fmt"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// MaxSize is how many bytes a canonical tar may have that is published; a spoke takes none that is larger.
const MaxSize = 64 << 20

// ErrTooLarge: the content is larger than the limit.
var ErrTooLarge = errors.New("bundle too large")

// A coder costs milliseconds and megabytes to make, and is safe for concurrent EncodeAll or DecodeAll.
// Level: see BenchmarkCompress.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, encoderOptions(zstd.SpeedDefault)...)
		if err != nil {
			panic(err) // options are constant
		}
		return e
	})
	decoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(2), zstd.WithDecodeAllCapLimit(true))
		if err != nil {
			panic(err)
		}
		return d
	})
)

func encoderOptions(l zstd.EncoderLevel) []zstd.EOption {
	return []zstd.EOption{zstd.WithEncoderLevel(l), zstd.WithEncoderConcurrency(2), zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(1 << 20), zstd.WithEncoderCRC(false)}
}

// Compress is for storage and the wire; the digest is of the tar, so the level may change freely.
func Compress(tar []byte) []byte {
	return encoder().EncodeAll(tar, make([]byte, 0, len(tar)/4+1024))
}

// Decompress refuses what is larger than limit, whatever its header says, without holding more than
// limit bytes.
func Decompress(z []byte, limit int64) ([]byte, error) {
	var h zstd.Header
	if err := h.Decode(z); err != nil {
		return nil, fmt.Errorf("decompress bundle: %w", err)
	}
	if !h.HasFCS || h.Skippable {
		return nil, errors.New("decompress bundle: the frame does not say its size")
	}
	if h.FrameContentSize > uint64(max(limit, 0)) {
		return nil, fmt.Errorf("decompress bundle: %w: %d bytes, at most %d are allowed", ErrTooLarge, h.FrameContentSize, limit)
	}
	// One byte more than announced: a second frame behind the first would be noticed, and refused.
	tar, err := decoder().DecodeAll(z, make([]byte, 0, h.FrameContentSize+1))
	if errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		return nil, fmt.Errorf("decompress bundle: %w: more than the %d bytes that it announces", ErrTooLarge, h.FrameContentSize)
	}
	if err != nil {
		return nil, fmt.Errorf("decompress bundle: %w", err)
	}
	if uint64(len(tar)) != h.FrameContentSize {
		return nil, fmt.Errorf("decompress bundle: %d bytes, announced are %d", len(tar), h.FrameContentSize)
	}
	return tar, nil
}
