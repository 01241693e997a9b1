package provenance

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The shape of a large release: 1,500 files in folders, the median of 1.5 KiB that manifests have, some
// charts' worth of larger ones.
func manyFiles() []File {
	r := rand.New(rand.NewPCG(1500, 1))
	var files []File
	for i := range 1500 {
		size := 500 + r.IntN(2000)
		if i%50 == 0 {
			size = 60_000
		}
		data := make([]byte, size)
		for j := range data {
			data[j] = "abcdefghij: \n"[r.IntN(13)]
		}
		files = append(files, File{Path: fmt.Sprintf("app-%d/service-%02d/object-%04d.yaml", i%3, i%40, i), Data: data})
	}
	slices.SortFunc(files, byPath)
	return files
}

// BenchmarkVerify1500 verifies a release of 1,500 files as the spoke does before it renders: the objects, the
// signature, every file's SHA-1 and, by the trailer, SHA-256.
func BenchmarkVerify1500(b *testing.B) {
	files := manyFiles()
	total := 0
	for _, f := range files {
		total += len(f.Data)
	}
	proof, commit := releaseOf(b, files)
	sum, err := ContentSHA256(files)
	if err != nil {
		b.Fatal(err)
	}
	for _, v := range []vendor{sshVendor(b, "", "-t", "ed25519"), pgpVendor(b, "rsa", pgpConfig(1, tagged()))} {
		b.Run(string(v.name[:3]), func(b *testing.B) {
			policy := Policy{Signers: v.set(b)}
			p := proof
			p.TagName, p.Tag = "1.1.0", signed(b, v, tagPayload(commit, "1.1.0", "one\n\nBundle-SHA256: "+sum+"\n"))
			var each []time.Duration
			for b.Loop() {
				begin := time.Now()
				if _, err := Verify(p, files, "1.1.0", policy, later()); err != nil {
					b.Fatal(err)
				}
				each = append(each, time.Since(begin))
			}
			slices.Sort(each)
			if v.keyFile != "" {
				fmt.Printf("FIGURE verify.1500-files %.1f ms median of %d, %d KiB, SSH signature, SHA-1 with collision detection and SHA-256; to stay below 30\n",
					each[len(each)/2].Seconds()*1000, len(each), total>>10)
			}
		})
	}
}
