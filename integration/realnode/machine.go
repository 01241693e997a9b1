package realnode

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/wheelwright-dev/wheelwright/integration/child"
)

// The node's addresses: of the range for benchmarks (RFC 2544), which nobody routes, and pods in the range that
// clusters like to have.
const (
	hostAddress     = "198.18.244.1" // this machine's end of the link
	nodeAddress     = "198.18.244.2"
	balancerNetwork = "198.18.245.0/24"
	podNetwork      = "10.244.0.0/24"
	link            = "wwnode0"
)

// machine is what the node runs on: namespaces of mounts, network and processes, held by one process that does
// nothing but wait for orphans. When it dies, and it dies with us, the kernel ends all that runs in them.
type machine struct {
	holder *child.Process
}

// hidden are folders that containerd, CNI and kubelet know by fixed names. On the node they are empty file systems.
var hidden = [...]string{"/run/containerd", "/run/netns", "/var/lib/cni", "/var/lib/kubelet", "/var/log/containers"}

// setUp prepares the namespaces from within: its arguments are the holder's program, the resolver's file, a
// folder for files, and the folders to hide. Kubelet sets some of the kernel's settings, which are the whole machine's; here it finds files in
// their place that say what it wants, and the machine keeps its own.
const setUp = `set -eu
holder=$1 resolv=$2 settings=$3; shift 3
mount --make-rprivate /
mount -t proc proc /proc
for folder; do mount -t tmpfs tmpfs "$folder"; done
mount --bind "$resolv" /etc/resolv.conf
for setting in vm/overcommit_memory=1 vm/panic_on_oom=0 kernel/panic=10 kernel/panic_on_oops=1 \
	kernel/keys/root_maxkeys=1000000 kernel/keys/root_maxbytes=25000000; do
	file=$settings/$(echo "${setting%=*}" | tr / .)
	echo "${setting#*=}" > "$file"
	mount --bind "$file" "/proc/sys/${setting%=*}"
done
ip link set lo up
echo 1 > /proc/sys/net/ipv4/ip_forward
exec "$holder"
`

func startMachine(ctx context.Context, dir, holder string) (*machine, error) {
	if err := makeHidden(); err != nil {
		return nil, err
	}
	if err := makeCgroup(); err != nil {
		return nil, err
	}
	resolv := filepath.Join(dir, "resolv.conf")
	if err := os.WriteFile(resolv, []byte(resolvConf), 0o644); err != nil {
		return nil, err
	}
	args := append([]string{"-c", setUp, "sh", holder, resolv, filepath.Join(dir, "state")}, hidden[:]...)
	p, err := child.Start("the node's namespaces", filepath.Join(dir, "logs", "machine.log"), isolate, "sh", args...)
	if err != nil {
		return nil, err
	}
	m := &machine{holder: p}
	err = p.Await(ctx, "the node's namespaces", func(context.Context) error {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", p.PID()))
		if err == nil && strings.TrimSpace(string(name)) != filepath.Base(holder) {
			err = errors.New("not set up yet")
		}
		return err
	})
	if err == nil {
		err = m.connect(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, m.stop())
	}
	return m, nil
}

// connect lays the link between this machine and the node. Routes to the Services come when their network is known.
func (m *machine) connect(ctx context.Context) error {
	pid := strconv.Itoa(m.holder.PID())
	for _, line := range []string{
		"ip link add " + link + " type veth peer name eth0 netns " + pid,
		"ip address add " + hostAddress + "/30 dev " + link,
		"ip link set " + link + " up",
		"nsenter --target " + pid + " --net ip address add " + nodeAddress + "/30 dev eth0",
		"nsenter --target " + pid + " --net ip link set eth0 up",
	} {
		if _, err := run(ctx, strings.Fields(line)...); err != nil {
			return fmt.Errorf("connect the node: %w", err)
		}
	}
	return errors.Join(m.route(ctx, podNetwork), m.route(ctx, balancerNetwork), m.ownRoute(ctx, balancerNetwork))
}

// route leads a network's packets to the node. The route is gone with the link.
func (m *machine) route(ctx context.Context, network string) error {
	if _, err := run(ctx, "ip", "route", "add", network, "via", nodeAddress, "dev", link); err != nil {
		return fmt.Errorf("lead %s to the node (does this machine use it already?): %w", network, err)
	}
	return nil
}

// ownRoute lets the node itself send to a network whose addresses kube-proxy replaces on the way out: without a route
// nothing gets that far, and the node has none to anywhere else.
func (m *machine) ownRoute(ctx context.Context, network string) error {
	if _, err := run(ctx, "nsenter", "--target", strconv.Itoa(m.holder.PID()), "--net", "ip", "route", "add", network, "dev", "eth0"); err != nil {
		return fmt.Errorf("lead the node to %s: %w", network, err)
	}
	return nil
}

// enter is the command line that runs a program on the node.
func (m *machine) enter(program string, args ...string) (string, []string) {
	return "nsenter", append([]string{"--target", strconv.Itoa(m.holder.PID()), "--mount", "--net", "--pid", "--", program}, args...)
}

// stop ends everything on the node. The holder is reaped after all of them.
func (m *machine) stop() error {
	return errors.Join(m.holder.Stop(), removeLink(), removeCgroup(), removeHidden())
}

// run runs a command to its end and returns what it printed.
func run(ctx context.Context, line ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, line[0], line[1:]...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(line, " "), err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}
