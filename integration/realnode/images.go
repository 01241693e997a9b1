package realnode

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

const (
	pauseImage = "localhost/pause:1"
	// ToolsImage has bash, curl, wget, grep, cat, sleep and hey, and no command of its own.
	ToolsImage = "localhost/tools:1"
	// TesterImage is Flagger's load tester, with the same tools, under the name that the reference distribution has.
	TesterImage = "weaveworks/flagger-loadtester:0.8.0"
	// IngressImage is the name of the reference distribution's ingress; behind it is cmd/ingress, a stand-in.
	IngressImage = "envoyproxy/envoy-alpine:v1.11.1"
	podinfo      = "stefanprodan/podinfo"
)

// PodinfoTags are the tags under which podinfo is known to the node. The same build stands behind all of them: what
// differs between releases of the reference distribution is what they ask of it.
func PodinfoTags() []string { return []string{"3.1.0", "3.1.1", "6.9.2", "6.10.0"} }

// PodinfoImage is the image's name with a tag.
func PodinfoImage(tag string) string { return podinfo + ":" + tag }

// programs are the harness's own that run on the node.
type programs struct{ pause, ingress string }

func (n *Node) buildPrograms(ctx context.Context) (programs, error) {
	p := programs{pause: n.file("images", "pause"), ingress: n.file("images", "ingress")}
	for target, folder := range map[string]string{p.pause: "pause", p.ingress: "ingress"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", target, "github.com/wheelwright-dev/wheelwright/integration/realnode/cmd/"+folder)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
		if out, err := cmd.CombinedOutput(); err != nil {
			return p, fmt.Errorf("build %s: %w: %s", folder, err, out)
		}
	}
	return p, nil
}

// standardImages are those that every node has.
func (n *Node) standardImages(ctx context.Context, own programs) ([]Image, error) {
	pods := Image{Command: []string{"./podinfo"}, Folder: "home/app", Files: map[string]string{
		"home/app/podinfo": n.bin.Path("podinfo"), "usr/local/bin/podcli": n.bin.Path("podcli"),
	}}
	for _, tag := range PodinfoTags() {
		pods.Names = append(pods.Names, PodinfoImage(tag))
	}
	tools := Image{Names: []string{ToolsImage, TesterImage}, Links: map[string]string{"bin/sh": "bash"}, Files: map[string]string{
		"loadtester": n.bin.Path("loadtester"), "usr/local/bin/hey": n.bin.Path("hey"),
	}}
	for _, program := range []string{"bash", "curl", "wget", "grep", "cat", "sleep"} {
		path, err := exec.LookPath(program)
		if err != nil {
			return nil, err
		}
		if path, err = filepath.EvalSymlinks(path); err != nil {
			return nil, err
		}
		if err := tools.addProgram(ctx, path, "bin/"+program); err != nil {
			return nil, err
		}
	}
	return []Image{
		{Names: []string{pauseImage}, Command: []string{"/pause"}, Files: map[string]string{"pause": own.pause}},
		pods, tools,
		{Names: []string{IngressImage}, Files: map[string]string{"usr/local/bin/envoy": own.ingress}},
	}, nil
}
