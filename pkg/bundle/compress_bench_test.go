package bundle

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/wheelwright-dev/wheelwright/pkg/provenance"
)

// text is a release of about the size and redundancy of a real one.
func text(b *testing.B) []byte {
	b.Helper()
	source, err := filepath.Abs("../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(source); err == nil {
		dir := filepath.Join(b.TempDir(), "app")
		out, err := exec.Command("sh", "-c", fmt.Sprintf("git clone -q --bare '%s' '%s' && git -C '%s' archive 2.0.0 dist", source, dir, dir)).Output()
		if err != nil {
			b.Fatal(err)
		}
		return out
	}
	var files []provenance.File
	for i := range 80 {
		files = append(files, provenance.File{Path: fmt.Sprintf("app/%02d.yaml", i),
			Data: []byte(fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c%d\n", i) + strings.Repeat(fmt.Sprintf("# line %d\n", i*7919), 40))})
	}
	return pack(b, files, sampleProof())
}

// The level is chosen by this.
func BenchmarkCompress(b *testing.B) {
	tar := text(b)
	for _, l := range []zstd.EncoderLevel{zstd.SpeedFastest, zstd.SpeedDefault, zstd.SpeedBetterCompression, zstd.SpeedBestCompression} {
		b.Run(l.String(), func(b *testing.B) {
			e, err := zstd.NewWriter(nil, encoderOptions(l)...)
			if err != nil {
				b.Fatal(err)
			}
			var z []byte
			for b.Loop() {
				z = e.EncodeAll(tar, z[:0])
			}
			b.ReportMetric(float64(len(tar))/float64(len(z)), "times-smaller")
		})
	}
	b.Run("warm", func(b *testing.B) {
		for b.Loop() {
			Compress(tar)
		}
	})
}

func BenchmarkPackAndOpen(b *testing.B) {
	var files []provenance.File
	for i := range 80 {
		files = append(files, provenance.File{Path: fmt.Sprintf("app/%02d.yaml", i), Data: make([]byte, 600)})
	}
	tar := pack(b, files, sampleProof())
	b.Run("Pack", func(b *testing.B) {
		for b.Loop() {
			pack(b, files, sampleProof())
		}
	})
	b.Run("Open", func(b *testing.B) {
		for b.Loop() {
			if _, err := Open(tar); err != nil {
				b.Fatal(err)
			}
		}
	})
}
