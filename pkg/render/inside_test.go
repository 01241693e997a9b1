package render

import (
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"testing"
)

// TestInsideSandbox is half of TestSandboxConfines: it is meaningful only in a process of its own.
func TestInsideSandbox(t *testing.T) {
	address := os.Getenv("WHEELWRIGHT_TEST_INSIDE")
	if address == "" {
		t.Log("runs as part of TestSandboxConfines")
		return
	}
	active := sandbox()
	t.Logf("sandbox: %s", active)
	if _, err := http.Get("http://" + address); err == nil {
		t.Error("HTTP went out")
	}
	if active == "none" {
		t.Log("this kernel has neither Landlock nor seccomp")
		return
	}
	must := func(what string, err error) {
		if err == nil {
			t.Errorf("%s: succeeded", what)
		}
	}
	c, err := net.Dial("tcp", address)
	must("TCP", err)
	if err == nil {
		c.Close()
	}
	if _, err = net.Dial("udp", address); err == nil && active != "landlock" {
		t.Error("UDP: succeeded")
	}
	_, err = os.ReadFile("/etc/passwd")
	must("reading /etc/passwd", err)
	must("writing", os.WriteFile("/tmp/wheelwright-sandbox-test", nil, 0o600))
	for _, name := range []string{"/bin/true", "/proc/self/exe"} {
		must("running "+name, exec.Command(name).Run())
	}
}

func TestLocation(t *testing.T) {
	const bundlePath = "dist"
	same := []string{
		"github.com/vendor/app/dist//app-istio?ref=1.1.0",
		"github.com/vendor/app//dist/app-istio?ref=1.1.0",
		"github.com/vendor/app/dist/app-istio?ref=1.1.0",
		"https://github.com/vendor/app//dist/app-istio?ref=1.1.0",
		"https://github.com/vendor/app.git//dist/app-istio/?ref=1.1.0",
		"https://github.com/vendor/app.git/dist/app-istio?ref=1.1.0",
		"https://GitHub.com:443/Vendor/app//dist/app-istio?version=1.1.0",
		"https://user:secret@github.com/vendor/app//dist/app-istio?ref=1.1.0&timeout=90s",
		"HTTPS://github.com/vendor/app//dist//app-istio?ref=1.1.0&version=7.0.0",
		"git::https://github.com/vendor/app//dist/app-istio?ref=1.1.0",
		"git@github.com:vendor/app//dist/app-istio?ref=1.1.0",
		"git@github.com:vendor/app.git/dist/app-istio?ref=1.1.0",
		"github.com:vendor/app//dist/app-istio?ref=1.1.0",
		"ssh://git@github.com/vendor/app//dist/app-istio?ref=1.1.0",
		"ssh://git@github.com:22/vendor/app.git//dist/./app-istio?ref=1.1.0",
	}
	urls := []string{"https://github.com/vendor/app", "https://github.com/vendor/app.git/", "git@github.com:vendor/app.git",
		"ssh://git@github.com/vendor/app", "github.com/vendor/app"}
	for _, ref := range same {
		if !remote(ref) {
			t.Errorf("%s is not seen as remote", ref)
		}
		for _, u := range urls {
			b, ok, _ := matchBase(ref, []string{"/elsewhere", u}, bundlePath)
			if want := (base{Folder: "app-istio", Ref: "1.1.0"}); !ok || b != want {
				t.Errorf("%s against %s: %+v, %v; want %+v", ref, u, b, ok, want)
			}
		}
	}
	for _, ref := range []string{
		"github.com/vendor/application//dist/app-istio", "github.com/other/app//dist/app-istio",
		"https://gitlab.com/vendor/app//dist/app-istio", "github.com/vendor/app//dist/../../x",
		"https://github.com:8443/vendor/app//dist/app-istio", "file:///vendor/app//dist/app-istio",
	} {
		if b, ok, _ := matchBase(ref, urls, bundlePath); ok {
			t.Errorf("%s matched as %+v", ref, b)
		}
	}
	for ref, folder := range map[string]string{"file:///srv/app.git//dist/x?ref=1.0.0": "x", "file:///srv/app//dist": "."} {
		if b, ok, _ := matchBase(ref, []string{"/srv/app/"}, bundlePath); !ok || b.Folder != folder {
			t.Errorf("%s: %+v, %v", ref, b, ok)
		}
	}
	if _, ok, sameRepository := matchBase("github.com/vendor/app//docs", urls, bundlePath); ok || !sameRepository {
		t.Error("docs: want the same repository, another folder")
	}
	if b, ok, _ := matchBase("github.com/vendor/app?ref=v2", urls, "."); !ok || b.Folder != "." {
		t.Errorf("root: %+v, %v", b, ok)
	}
	for _, local := range []string{"base", "../base", "./a/b.yaml", "a:b", "dir.with.dots/x"} {
		if remote(local) {
			t.Errorf("%s is seen as remote", local)
		}
	}
}

func TestTree(t *testing.T) {
	tr := newTree()
	tr.put("/a/b/c..d.yaml", []byte("x"))
	tr.put("/a/e", []byte("y"))
	if got := tr.children("/a"); !slices.Equal(got, []string{"b", "e"}) {
		t.Errorf("children: %v", got)
	}
	if d, f, err := tr.CleanedAbs("/a/./b/../b/c..d.yaml"); d != "/a/b" || f != "c..d.yaml" || err != nil {
		t.Errorf("CleanedAbs: %v, %v, %v", d, f, err)
	}
	if _, _, err := tr.CleanedAbs("/etc/passwd"); err == nil {
		t.Error("/etc/passwd is there")
	}
	var walked []string
	err := tr.Walk("/", func(p string, info os.FileInfo, err error) error {
		walked = append(walked, p)
		return err
	})
	if want := []string{"/", "/a", "/a/b", "/a/b/c..d.yaml", "/a/e"}; err != nil || !slices.Equal(walked, want) {
		t.Errorf("Walk: %v, %v", walked, err)
	}
	if err := tr.WriteFile("/a/e", nil); err == nil {
		t.Error("it can be written")
	}
}
