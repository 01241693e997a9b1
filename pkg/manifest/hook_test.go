package manifest_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/manifest"
)

func TestHooks(t *testing.T) {
	job := "apiVersion: batch/v1\nkind: Job\nmetadata: {name: migrate, namespace: shop, annotations: {%s}}\nspec: {%s}\n"
	for _, tc := range []struct{ notes, spec, want string }{
		{``, ``, "none"},
		{`wheelwright.dev/hook: before`, ``, "before install update 0"},
		{`wheelwright.dev/hook: after, wheelwright.dev/hook-weight: "-3"`, ``, "after install update -3"},
		{`wheelwright.dev/hook: during`, ``, `annotation wheelwright.dev/hook: "during" is neither before nor after`},
		{`wheelwright.dev/hook: before, wheelwright.dev/hook-weight: soon`, ``, `the weight of its wheelwright.dev/hook is "soon", which is no whole number`},
		{`wheelwright.dev/hook: before`, `suspend: true`, "it is a hook and suspended, and would never end; take spec.suspend out"},
		{`helm.sh/hook: "pre-install, pre-upgrade", helm.sh/hook-weight: "5"`, ``, "before install update 5"},
		{`helm.sh/hook: pre-upgrade`, ``, "before update 0"},
		{`helm.sh/hook: post-install`, ``, "after install 0"},
		{`helm.sh/hook: "pre-install,post-upgrade"`, ``, "it cannot be both before and after; make two of it"},
		{`helm.sh/hook: pre-delete`, `suspend: true`, "never"},
		{`helm.sh/hook: test`, ``, "never"},
		{`helm.sh/hook: crd-install`, ``, "none"},
		{`argocd.argoproj.io/hook: PreSync, argocd.argoproj.io/sync-wave: "2", helm.sh/hook: post-install`, ``, "before install update 2"},
		{`argocd.argoproj.io/hook: PostSync`, ``, "after install update 0"},
		{`argocd.argoproj.io/hook: Sync`, ``, "none"},
		{`argocd.argoproj.io/hook: SyncFail`, ``, "never"},
	} {
		objs, err := manifest.Parse(fmt.Appendf(nil, job, tc.notes, tc.spec))
		if err != nil {
			t.Fatal(err)
		}
		h, is, err := manifest.ReadHook(objs[0])
		got := "none"
		switch {
		case err != nil:
			got = err.Error()
		case is && !h.Due(true) && !h.Due(false):
			got = "never"
		case is:
			got = strings.Join(strings.Fields(strings.Join([]string{map[bool]string{true: "before", false: "after"}[h.Before],
				map[bool]string{true: "install"}[h.Due(true)], map[bool]string{true: "update"}[h.Due(false)], fmt.Sprint(h.Weight)}, " ")), " ")
		}
		if !strings.HasSuffix(got, tc.want) {
			t.Errorf("{%s} {%s}: %s, want %s", tc.notes, tc.spec, got, tc.want)
		}
		if problems := manifest.HookProblems(objs); (len(problems) > 0) != (err != nil) {
			t.Errorf("{%s}: problems %q", tc.notes, problems)
		}
	}
	objs, err := manifest.Parse([]byte("apiVersion: v1\nkind: Pod\nmetadata: {name: once, annotations: {wheelwright.dev/hook: before}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(manifest.HookProblems(objs)); !strings.Contains(got, ": of what runs only a Job can be a hook; make a Job of it") {
		t.Error(got)
	}
}
