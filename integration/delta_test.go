package integration

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/integration/world"
)

// An upgrade sends what is new and no more; of a bundle that takes long, what has come before the hub was killed is
// not sent again; where the hub's copy of a delta is damaged, it is made anew.
func TestUpgradeSendsWhatIsNew(t *testing.T) {
	s := tell(t, 2)
	_, err := s.hub.Stop()
	s.must(err)
	metrics := freePort(t)
	s.must(s.hub.Configure("metrics: " + metrics + "\nbundles: {bytesPerSecond: 400000}\n"))
	s.must(s.hub.Start(s.ctx))
	// What all releases have is large enough for a delta to be worth it, whatever else is new.
	noise := make([]byte, 2_600_000)
	random := rand.NewChaCha8([32]byte{1})
	_, err = random.Read(noise)
	s.must(err)
	common, fresh := noise[:600_000], noise[600_000:]
	s.must(s.vendor.Write("dist/notes.bin", string(common)))
	s.watchShop()
	s.joinAll()
	s.release("1.1.0", "Available")
	s.runs("1.1.0")

	// Both spokes have it, and it was made once.
	s.must(s.vendor.Replace("deployment.yaml", ":1.1.0", ":1.1.1"))
	first := s.release("1.1.1", "Available").GetDigest()
	s.runs("1.1.1")
	whole := int64(0)
	for _, sent := range s.sent(s.judged("1.1.0", "Available").GetDigest()) {
		whole = sent.bytes
		if sent.base != "" {
			t.Errorf("the first release was sent as a delta on %s", sent.base)
		}
	}
	for _, sent := range s.sent(first) {
		if sent.base == "" || sent.bytes*3 > whole {
			t.Errorf("1.1.1 was sent to %s in %d bytes on the base %q; 1.1.0 has %d", sent.cluster, sent.bytes, sent.base, whole)
		}
		t.Logf("1.1.0 has %d bytes, 1.1.1 was sent to %s in %d", whole, sent.cluster, sent.bytes)
	}
	if n := len(s.sent(first)); n != 2 {
		t.Errorf("1.1.1 was sent %d times", n)
	}
	if built := scrape(t, metrics, "wheelwright_hub_deltas_built_total"); built != 1 {
		t.Errorf("%d deltas were made for two spokes", built)
	}

	// Some MB that no delta makes smaller take a while; meanwhile the hub is killed.
	_, err = s.spokes[1].Stop()
	s.must(err)
	s.must(s.vendor.Write("dist/notes.bin", string(noise)))
	before := scrape(t, metrics, `wheelwright_hub_bundle_sent_bytes_total{encoding="delta"}`)
	long := s.release("1.2.0", "Available").GetDigest()
	s.must(world.Await(s.patiently(), "some of 1.2.0 to be sent", func(context.Context) error {
		if sent := scrape(t, metrics, `wheelwright_hub_bundle_sent_bytes_total{encoding="delta"}`) - before; sent < 600_000 {
			return errorf("%d bytes are", sent)
		}
		return nil
	}))
	s.must(s.hub.Kill())
	s.must(s.hub.Start(s.ctx))
	s.runs("1.2.0", names[0])
	sent := s.sent(long)
	if len(sent) < 2 || sent[0].base == "" || sent[0].bytes < int64(len(fresh)) || sent[len(sent)-1].bytes > sent[0].bytes-400_000 {
		t.Errorf("1.2.0 was sent again from its beginning: %+v", sent)
	}
	t.Logf("1.2.0: %+v", sent)

	// The other spoke asks for a delta of which the hub's file is damaged.
	s.must(s.hub.Kill())
	files, err := filepath.Glob(filepath.Join(s.hub.Dir, "deltas", "*.delta"))
	s.must(err)
	for _, f := range files {
		s.must(os.WriteFile(f, []byte("damaged"), 0o600))
	}
	s.must(s.hub.Start(s.ctx))
	s.must(s.spokes[1].Start())
	s.runs("1.2.0")
	if built := scrape(t, metrics, "wheelwright_hub_deltas_built_total"); len(files) != 2 || built != 1 {
		t.Errorf("%d files of deltas were damaged, and %d deltas were made", len(files), built)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// sentBundle is a line of the hub's log.
type sentBundle struct {
	cluster, base string
	bytes         int64
}

var sendingLine = regexp.MustCompile(`msg="sending bundle" .*cluster=(\S+) .*digest=(\S+) base=(\S+) bytes=(\d+)`)

// sent is each time that the hub began to send a bundle, and how much of it.
func (s *story) sent(digest string) (all []sentBundle) {
	s.t.Helper()
	text, err := os.ReadFile(s.hub.Log)
	s.must(err)
	for line := range strings.Lines(string(text)) {
		m := sendingLine.FindStringSubmatch(line)
		if m == nil || m[2] != digest {
			continue
		}
		n, err := strconv.ParseInt(m[4], 10, 64)
		s.must(err)
		all = append(all, sentBundle{m[1], strings.Trim(m[3], `"`), n})
	}
	return all
}

// scrape reads one number of the hub's metrics, as its line begins.
func scrape(t *testing.T, addr, name string) int64 {
	t.Helper()
	r, err := http.Get(fmt.Sprintf("http://%s/metrics", addr))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, name+" "); ok {
			n, err := strconv.ParseFloat(strings.TrimSpace(value), 64)
			if err != nil {
				t.Fatal(err)
			}
			return int64(n)
		}
	}
	t.Fatalf("no %s", name)
	return 0
}
