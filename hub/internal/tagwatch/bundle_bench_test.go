package tagwatch

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/harness"
	"github.com/wheelwright-dev/wheelwright/pkg/bundle"
	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/pkg/gitrepo"
)

// service is what a distribution holds of one of its services, as people write it: file and text.
func service(r *rand.Rand, name, version string) map[string]string {
	word := func() string {
		return []string{"cache", "billing", "orders", "search", "stock", "mail", "audit", "report", "token", "ledger"}[r.IntN(10)]
	}
	var env, config strings.Builder
	for n := range 6 + r.IntN(10) {
		fmt.Fprintf(&env, "        - name: %s_%s_%d\n          value: %q\n", strings.ToUpper(word()), strings.ToUpper(word()), n, fmt.Sprintf("%s-%d.%s.svc", word(), r.IntN(1000), name))
	}
	for range 10 + r.IntN(30) {
		fmt.Fprintf(&config, "    %s.%s.timeout=%dms\n", word(), word(), 10*r.IntN(500))
	}
	return map[string]string{
		"kustomization.yaml": "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n- deployment.yaml\n- service.yaml\n- hpa.yaml\n- config.yaml\n- policy.yaml\n",
		"deployment.yaml": fmt.Sprintf(`apiVersion: apps/v1
kind: Deployment
metadata:
  name: %[1]s
  labels: {app.kubernetes.io/name: %[1]s, app.kubernetes.io/part-of: shop}
spec:
  minReadySeconds: 3
  revisionHistoryLimit: 5
  strategy: {type: RollingUpdate, rollingUpdate: {maxUnavailable: 0}}
  selector:
    matchLabels: {app: %[1]s}
  template:
    metadata:
      annotations: {prometheus.io/scrape: "true", prometheus.io/port: "9797"}
      labels: {app: %[1]s}
    spec:
      containers:
      - name: %[1]s
        image: registry.example.com/shop/%[1]s:%[2]s
        imagePullPolicy: IfNotPresent
        ports:
        - {name: http, containerPort: 9898, protocol: TCP}
        - {name: http-metrics, containerPort: 9797, protocol: TCP}
        env:
%[3]s        livenessProbe:
          exec: {command: [podcli, check, http, localhost:9898/healthz]}
          initialDelaySeconds: 5
          timeoutSeconds: 5
        readinessProbe:
          exec: {command: [podcli, check, http, localhost:9898/readyz]}
          initialDelaySeconds: 5
          timeoutSeconds: 5
        resources:
          limits: {cpu: %[4]dm, memory: %[5]dMi}
          requests: {cpu: 100m, memory: 32Mi}
`, name, version, &env, 500+r.IntN(1500), 256+r.IntN(768)),
		"service.yaml": fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata:\n  name: %[1]s\nspec:\n  type: ClusterIP\n  selector: {app: %[1]s}\n  ports:\n  - {name: http, port: %[2]d, protocol: TCP, targetPort: http}\n  - {name: grpc, port: 9999, protocol: TCP, targetPort: grpc}\n", name, 8000+r.IntN(1000)),
		"hpa.yaml":     fmt.Sprintf("apiVersion: autoscaling/v2\nkind: HorizontalPodAutoscaler\nmetadata:\n  name: %[1]s\nspec:\n  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: %[1]s}\n  minReplicas: 2\n  maxReplicas: %[2]d\n  metrics:\n  - type: Resource\n    resource: {name: cpu, target: {type: Utilization, averageUtilization: %[3]d}}\n", name, 3+r.IntN(20), 50+r.IntN(50)),
		"config.yaml":  fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: %s\ndata:\n  application.properties: |\n%s", name, &config),
		"policy.yaml":  fmt.Sprintf("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: %[1]s\nspec:\n  podSelector: {matchLabels: {app: %[1]s}}\n  ingress:\n  - from:\n    - podSelector: {matchLabels: {app: %[2]s}}\n    ports: [{port: 9898}]\n", name, word()),
	}
}

// realSize makes a bare repository of a distribution of 150 services in 900 files and some, each tag of which but the
// first changes a few of them: the images of three services and one's configuration.
func realSize(b *testing.B, tags int) (dir string, all []string) {
	r := rand.New(rand.NewPCG(5, 5))
	work := filepath.Join(b.TempDir(), "work")
	git(b, ".", "init", "-q", "-b", "main", work)
	put := func(name, file, text string) {
		path := filepath.Join(work, "dist/base", name, file)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			b.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	const services = 150
	name := func(n int) string { return fmt.Sprintf("team-%d/svc-%03d", n%12, n) }
	for n := range services {
		for file, text := range service(r, fmt.Sprintf("svc-%03d", n), "1.0.0") {
			put(name(n), file, text)
		}
	}
	for n := range tags {
		tag := fmt.Sprintf("1.%d.0", n)
		if n > 0 {
			for range 3 {
				at := r.IntN(services)
				put(name(at), "deployment.yaml", service(r, fmt.Sprintf("svc-%03d", at), tag)["deployment.yaml"])
			}
			at := r.IntN(services)
			put(name(at), "config.yaml", service(r, fmt.Sprintf("svc-%03d", at), tag)["config.yaml"])
		}
		git(b, work, "add", "-A")
		git(b, work, "commit", "-q", "-m", tag)
		git(b, work, "tag", "-a", "-m", tag, tag)
		all = append(all, tag)
	}
	dir = filepath.Join(b.TempDir(), "bare")
	git(b, ".", "clone", "-q", "--mirror", "file://"+work, dir) // one pack, as a host would send it
	return dir, all
}

func reference(b *testing.B) (dir string, tags []string) {
	source, err := filepath.Abs("../../../../shared/distributions/app-distribution.gitbundle")
	if err != nil {
		b.Fatal(err)
	}
	if _, err := os.Stat(source); err != nil {
		return "", nil
	}
	dir = filepath.Join(b.TempDir(), "app")
	git(b, ".", "clone", "-q", "--mirror", source, dir)
	return dir, []string{"1.1.0", "1.1.1", "1.2.0", "1.3.0", "1.4.0", "1.5.0", "1.6.0", "2.0.0"}
}

// spent is processor time, user and system, with what it took by the clock.
type spent struct{ processor, clock time.Duration }

// ours is what f takes of this process; garbage of before is collected first, f's own is f's.
func ours(b *testing.B, f func()) spent {
	now := func() time.Duration {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			b.Fatal(err)
		}
		return time.Duration(u.Utime.Nano() + u.Stime.Nano())
	}
	runtime.GC()
	before, begin := now(), time.Now()
	f()
	return spent{now() - before, time.Since(begin)}
}

// floor is git archive of a tag's folder into sha256sum: all processes of the pipe.
func floor(b *testing.B, dir, tag string) spent {
	cmd := exec.Command("sh", "-c", "git archive "+tag+" dist | sha256sum")
	cmd.Dir = dir
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v\n%s", err, out)
	}
	return spent{cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), time.Since(begin)}
}

// series are pairs of one measurement, the two sides in turns.
type series struct{ mine, theirs []spent }

func (s *series) add(mine, theirs spent) {
	s.mine, s.theirs = append(s.mine, mine), append(s.theirs, theirs)
}

// ratio is the median of the pairs, with how far they spread.
func (s series) ratio(of func(spent) time.Duration) (median, least, most float64) {
	var all []float64
	for i := range s.mine {
		all = append(all, of(s.mine[i]).Seconds()/of(s.theirs[i]).Seconds())
	}
	slices.Sort(all)
	return all[len(all)/2], all[0], all[len(all)-1]
}

func (s series) String() string {
	middle := func(side []spent, of func(spent) time.Duration) float64 {
		var all []time.Duration
		for _, one := range side {
			all = append(all, of(one))
		}
		slices.Sort(all)
		return all[len(all)/2].Seconds() * 1000
	}
	processor, clock := func(s spent) time.Duration { return s.processor }, func(s spent) time.Duration { return s.clock }
	_, least, most := s.ratio(processor)
	wall, _, _ := s.ratio(clock)
	return fmt.Sprintf("median of %d pairs, %.2f to %.2f: %.1f ms of processor time against %.1f ms; by the clock %.1f ms against %.1f ms, %.2f",
		len(s.mine), least, most, middle(s.mine, processor), middle(s.theirs, processor), middle(s.mine, clock), middle(s.theirs, clock), wall)
}

// BenchmarkBundleVsGitArchive compares tag to canonical bundle with `git archive TAG dist | sha256sum`, in turns, from
// one repository on this disk: both read it warm, and neither fetches. Inside are: the tag to its commit, trees and
// files read with each object's id checked, the proof, the canonical tar and its SHA-256. Outside, and measured apart:
// the second look at the proof, compression and the building of variants.
func BenchmarkBundleVsGitArchive(b *testing.B) {
	const rounds = 15
	dir, tags := realSize(b, rounds+1)
	first, next, apart := measureBundles(b, "scale.b5-incremental", dir, tags)
	processor := func(s spent) time.Duration { return s.processor }
	note := func(files int, bytes int64) string {
		return fmt.Sprintf("%d files, tar of %.1f MB", files, float64(bytes)/1e6)
	}
	ratio, _, _ := first.ratio(processor)
	fmt.Printf("FIGURE scale.b5-vs-git-archive %.2f ratio %s; %s, nothing of it cached; beside it a release takes %s\n", ratio, first, note(apart.files, apart.bytes), apart)
	b.ReportMetric(ratio, "first")
	ratio, _, _ = next.ratio(processor)
	hashing, _, _ := apart.hash.ratio(processor)
	fmt.Printf("FIGURE scale.b5-incremental %.2f ratio %s; each tag changes 4 of %s, anywhere, after the one before it, the first %.2f of the way through; SHA-256 of what follows that is %.2f by itself\n",
		ratio, next, note(apart.files, apart.bytes), apart.changed, hashing)
	b.ReportMetric(ratio, "incremental")
	if dir, tags := reference(b); dir != "" {
		first, next, apart := measureBundles(b, "scale.b5-reference", dir, tags)
		ratio, _, _ := first.ratio(processor)
		again, _, _ := next.ratio(processor)
		fmt.Printf("FIGURE scale.b5-reference %.2f ratio the reference distribution, %s; %s; as the next of its own tags %.2f, changed from %.2f on\n", ratio, note(apart.files, apart.bytes), first, again, apart.changed)
	}
}

// apart is what a release costs beside its bundle.
type apart struct {
	files           int
	bytes           int64
	proof, compress time.Duration
	hash            series  // SHA-256 of a tar from what the tag changes first, against the floor of the whole
	changed         float64 // median share of a tar before that
}

func (a apart) String() string {
	return fmt.Sprintf("%.1f ms of processor time for the second look at its proof and %.1f ms for compression", a.proof.Seconds()*1000, a.compress.Seconds()*1000)
}

// profiledRounds through all tags are enough to see where the time goes.
const profiledRounds = 20

// measureBundles profiles, for a figure, what is built after the one before it.
func measureBundles(b *testing.B, figure, dir string, tags []string) (first, next series, beside apart) {
	open := func() *gitrepo.Repository {
		repo, err := gitrepo.Open(context.Background(), gitrepo.Config{URL: dir})
		if err != nil {
			b.Fatal(err)
		}
		for _, tag := range tags { // of a repository on this disk nothing is fetched: it learns what the tags are
			if err := repo.Fetch(context.Background(), tag); err != nil {
				b.Fatal(err)
			}
		}
		return repo
	}
	var shot gitrepo.Snapshot
	var tar []byte
	var digest fleet.Digest
	build := func(repo *gitrepo.Repository, packer *bundle.Packer, tag string) {
		var err error
		if shot, err = repo.Snapshot(tag, "dist"); err != nil {
			b.Fatal(err)
		}
		if tar, digest, err = packer.Pack("shop", shot.Files, shot.Proof); err != nil {
			b.Fatal(err)
		}
	}
	warm, packer := open(), bundle.NewPacker(32<<20)
	defer warm.Close()
	build(warm, packer, tags[0])
	floor(b, dir, tags[0])
	var changed []float64
	for _, tag := range tags[1:] {
		repo, was := open(), tar
		mine := ours(b, func() { build(repo, bundle.NewPacker(32<<20), tag) })
		first.add(mine, floor(b, dir, tag))
		whole := digest
		mine = ours(b, func() { build(warm, packer, tag) })
		theirs := floor(b, dir, tag)
		next.add(mine, theirs)
		from := same(was, tar)
		changed = append(changed, float64(from)/float64(len(tar)))
		beside.hash.add(ours(b, func() { bundle.DigestOf(tar[from:]) }), theirs)
		if digest != whole || digest != bundle.DigestOf(tar) {
			b.Fatalf("%s: %s alone, %s after the one before it", tag, whole, digest)
		}
		if err := repo.Close(); err != nil {
			b.Fatal(err)
		}
	}
	slices.Sort(changed)
	beside.changed = changed[len(changed)/2]
	beside.files, beside.bytes = len(shot.Files), int64(len(tar))
	beside.proof = ours(b, func() {
		if _, err := shot.Proof.Check(shot.Files); err != nil {
			b.Fatal(err)
		}
	}).processor
	beside.compress = ours(b, func() { bundle.Compress(tar) }).processor
	if err := harness.Profiled(figure, func() {
		for range profiledRounds {
			for _, tag := range tags {
				build(warm, packer, tag)
			}
		}
	}); err != nil {
		b.Fatal(err)
	}
	return first, next, beside
}

// same is how many bytes two have in common from their beginning.
func same(was, now []byte) int {
	n := 0
	for n < min(len(was), len(now)) && was[n] == now[n] {
		n++
	}
	return n
}
