package render_test

import (
	"encoding/json"
	"strings"
)

// hostile is one kustomization that means harm. @AT stands for the address of a server of the test's,
// @DIR for a folder of its own, with a git repository "repo" and a file "secret" in it.
type hostile struct {
	name  string
	k     string // v/kustomization.yaml, unless more has one of another name
	more  map[string]string
	plain bool // it does no harm by itself: kustomize is not told to act on it
}

const base = "resources: [../base]\n"

// function is the configuration of a krm function.
func function(how string) string {
	return "apiVersion: someteam.example.com/v1\nkind: Sed\nmetadata:\n  name: x\n  annotations:\n    config.kubernetes.io/function: |\n      " + how + "\n"
}

func builtin(kind, rest string) string {
	return "apiVersion: builtin\nkind: " + kind + "\nmetadata: {name: x}\n" + rest + "\n"
}

func file(name, text string) map[string]string { return map[string]string{"v/" + name: text} }

// hostiles are 80 and some. Each is named after its trick.
func hostiles() []hostile {
	return append(append(append(fetching(), cloning()...), loading()...), append(running(), reading()...)...)
}

// fetching has URLs as resources.
func fetching() []hostile {
	const u = "http://@AT/x.yaml"
	escaped, _ := json.Marshal(map[string]any{"resources": []string{u}})
	return []hostile{
		{name: "URL", k: "resources: [" + u + "]"},
		{name: "URL with the scheme in capitals", k: "resources: ['HTTP://@AT/x.yaml']"},
		{name: "URL under a key in capitals", k: "RESOURCES: ['" + u + "']"},
		{name: "URL through an anchor", k: "namePrefix: &u " + u + "\nresources: [*u]"},
		{name: "URL through a merge key", k: "<<: {resources: ['" + u + "']}"},
		{name: "URL with a tag", k: "resources: [!!str '" + u + "']"},
		{name: "URL from binary", k: "resources: [!!binary @URL64]"},
		{name: "URL in JSON", k: string(escaped)},
		{name: "URL in kustomization.yml", more: file("kustomization.yml", "resources: ['"+u+"']")},
		{name: "URL in Kustomization", more: file("Kustomization", "resources: ['"+u+"']")},
		{name: "URL in the second of two kustomizations", k: base, more: file("Kustomization", "resources: ['"+u+"']")},
		{name: "URL under a key given twice", k: base + "resources: ['" + u + "']"},
		{name: "URL in a second document", plain: true, k: base + "---\nresources: ['" + u + "']"},
		{name: "URL in a nested base", k: "resources: [inner]", more: file("inner/kustomization.yaml", "resources: ['"+u+"']")},
		{name: "URL in bases", k: "bases: ['" + u + "']"},
		{name: "URL in a component", k: base + "components: [c]", more: file("c/kustomization.yaml", "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: ['"+u+"']")},
		{name: "URL as a component", k: base + "components: ['" + u + "']"},
		{name: "URL that is a file's name, too", k: "resources: ['" + u + "']", more: file("http:/@AT/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")},
		{name: "URL in a folded scalar", k: "resources:\n- >-\n  " + u},
		{name: "URL in unicode escapes", k: `resources: ["\u0068ttp\u003a//@AT/x.yaml"]`},
		{name: "URL before a blank", k: "resources: ['" + u + " ']"},
		{name: "URL with a user", k: "resources: ['http://user:pass@@AT/x.yaml']"},
		{name: "URL with escapes in its path", k: "resources: ['http://@AT/%2e%2e/x.yaml']"},
		{name: "URL that leads elsewhere", k: "resources: ['http://@AT/elsewhere']"},
	}
}

// cloning has repositories.
func cloning() []hostile {
	return []hostile{
		{name: "git over http", k: "resources: ['http://@AT/org/repo?ref=main']"},
		{name: "git over ssh", k: "resources: ['git@127.0.0.1:org/repo?ref=main']"},
		{name: "git over ssh with a scheme", k: "resources: ['ssh://git@127.0.0.1/org/repo']"},
		{name: "git from this machine", k: "resources: ['file://@DIR/repo']"},
		{name: "git with its prefix", k: "resources: ['git::http://@AT/org/repo']"},
		{name: "git named by its suffix", k: "resources: ['http://@AT/org/repo.git/x']"},
		{name: "git in Azure's form", k: "resources: ['http://@AT/org/project/_git/repo/x']"},
		{name: "git with an option for a ref", k: "resources: ['file://@DIR/repo?ref=--upload-pack=@DIR/bin/git']"},
		{name: "git with submodules and patience", k: "resources: ['file://@DIR/repo?submodules=true&timeout=1s']"},
		{name: "git as a component", k: base + "components: [github.com/org/repo//x]"},
		{name: "GitHub without a scheme", k: "resources: ['github.com/org/repo//x?ref=v1']"},
		{name: "GitHub by ssh", k: "resources: ['git@github.com:org/repo']"},
		{name: "git behind a file of its name", k: "resources: ['github.com/org/repo']", more: file("github.com/org/repo", "not: [an object")},
		{name: "git as a folder of generators", k: base + "generators: ['file://@DIR/repo']"},
		{name: "git as a transformer that looks like one in place", k: base + "transformers: ['file://@DIR/repo?{}']"},
		{name: "git as a validator that reads as a mapping", k: base + "validators: ['file://@DIR/repo: y']"},
	}
}

// loading has URLs where kustomize takes files.
func loading() []hostile {
	const u = "http://@AT/x.yaml"
	return []hostile{
		{name: "patch", k: base + "patches: [{path: '" + u + "'}]"},
		{name: "patch that is a file's name, too", k: base + "patches: [{path: '" + u + "'}]", more: file("http:/@AT/x.yaml", "x: y\n")},
		{name: "patch with a brace", k: base + "patches: [{path: '" + u + "?{'}]"},
		{name: "patch with a selector", k: base + "patches: [{path: '" + u + "', target: {kind: Deployment}}]"},
		{name: "JSON patch", k: base + "patchesJson6902: [{path: '" + u + "', target: {version: v1, kind: Service, name: x}}]"},
		{name: "merge patch", k: base + "patchesStrategicMerge: ['" + u + "']"},
		{name: "merge patch with a brace", k: base + "patchesStrategicMerge: ['" + u + "?{']"},
		{name: "merge patch that reads as a mapping", k: base + "patchesStrategicMerge: ['" + u + ": y']"},
		{name: "replacement", k: base + "replacements: [{path: '" + u + "'}]"},
		{name: "schema", k: base + "openapi: {path: '" + u + "'}"},
		{name: "schema of a base", k: "resources: [inner]", more: file("inner/kustomization.yaml", "resources: [../../base]\nopenapi: {path: '"+u+"{'}")},
		{name: "definitions", k: base + "crds: ['" + u + "']"},
		{name: "configurations", k: base + "configurations: ['" + u + "']"},
		{name: "generator's file", k: "configMapGenerator: [{name: x, files: ['" + u + "']}]"},
		{name: "generator's file under a key", k: "configMapGenerator: [{name: x, files: ['k=" + u + "']}]"},
		{name: "generator's file with a brace", k: "secretGenerator: [{name: x, files: ['k=" + u + "?{']}]"},
		{name: "generator's environment", k: "secretGenerator: [{name: x, envs: ['" + u + "?a=b']}]"},
		{name: "generator's environment of old", k: "configMapGenerator: [{name: x, env: '" + u + "'}]"},
		{name: "builtin patch in capitals", k: base + "transformers: [t.yaml]", more: file("t.yaml", builtin("PatchTransformer", "PATH: HTTP://@AT/p"))},
		{name: "builtin generator's file under a key", k: base + "generators: [g.yaml]", more: file("g.yaml", builtin("ConfigMapGenerator", "files: ['k="+u+"']"))},
		{name: "builtin generator's environment in place", k: base + "generators:\n- " + indent(builtin("SecretGenerator", "envs: ['"+u+"']"))},
		{name: "builtin replacements", k: base + "transformers: [t.yaml]", more: file("t.yaml", builtin("ReplacementTransformer", "replacements: [{path: '"+u+"'}]"))},
		{name: "builtin merge patches", k: base + "transformers: [t.yaml]", more: file("t.yaml", builtin("PatchStrategicMergeTransformer", "paths: ['"+u+"']"))},
		{name: "builtin JSON patch behind another document", k: base + "transformers: [t.yaml]", more: file("t.yaml", builtin("AnnotationsTransformer", "annotations: {a: b}")+"--- # next\n"+builtin("PatchJson6902Transformer", "target: {version: v1, kind: Service, name: x}\npath: "+u))},
		{name: "builtin value from a file", k: base + "transformers: [t.yaml]", more: file("t.yaml", builtin("ValueAddTransformer", "value: x\ntargetFilePath: "+u))},
		{name: "generator's URL with a brace", k: base + "generators: ['" + u + "?{']"},
		{name: "transformer's URL that reads as a mapping", k: base + "transformers: ['" + u + ": y']"},
	}
}

// running has programs.
func running() []hostile {
	exe := function("exec: {path: @DIR/bin/git}")
	component := "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [../t.yaml]"
	return []hostile{
		{name: "exec function", k: base + "transformers: [t.yaml]", more: file("t.yaml", exe)},
		{name: "exec function in place", k: base + "generators:\n- " + indent(exe)},
		{name: "exec function as a validator", k: base + "validators: [t.yaml]", more: file("t.yaml", exe)},
		{name: "exec function in a folder", k: base + "generators: [g]", more: map[string]string{"v/g/kustomization.yaml": "resources: [t.yaml]", "v/g/t.yaml": exe}},
		{name: "exec function in a folder's component", k: base + "generators: [g]", more: map[string]string{"v/g/kustomization.yaml": "components: [c]", "v/g/t.yaml": exe, "v/g/c/kustomization.yaml": component}},
		{name: "exec function in a list", k: base + "transformers: [t.yaml]", more: file("t.yaml", "apiVersion: builtin\nkind: List\nitems:\n- "+strings.ReplaceAll(strings.TrimSpace(exe), "\n", "\n  ")+"\n")},
		{name: "exec function under a key given twice", k: base + "transformers: [t.yaml]", more: file("t.yaml", exe+"apiVersion: builtin\n")},
		{name: "exec function behind a separator", k: base + "transformers: [t.yaml]", more: file("t.yaml", builtin("AnnotationsTransformer", "annotations: {a: b}")+"---\r\n"+strings.ReplaceAll(exe, "\n", "\r\n"))},
		{name: "exec function made by a patch", k: base + "transformers: [t]", more: map[string]string{
			"v/t/kustomization.yaml": "resources: [t.yaml]\npatches: [{target: {kind: AnnotationsTransformer}, patch: '[{\"op\": \"replace\", \"path\": \"/apiVersion\", \"value\": \"x.example.com/v1\"}]'}]",
			"v/t/t.yaml":             strings.NewReplacer("someteam.example.com/v1", "builtin", "Sed", "AnnotationsTransformer").Replace(exe)}},
		{name: "container function", k: base + "transformers: [t.yaml]", more: file("t.yaml", function("container: {image: x, network: true}"))},
		{name: "starlark function", k: base + "transformers: [t.yaml]", more: file("t.yaml", function("starlark: {path: x.star, name: x}"))},
		{name: "plugin from the plugins' home", k: base + "generators: [t.yaml]", more: file("t.yaml", "apiVersion: evil.example.com/v1\nkind: Run\nmetadata: {name: x}\n")},
		{name: "function annotation on an object", plain: true, k: "resources: [t.yaml]", more: file("t.yaml", exe)},
		{name: "Helm chart", k: "helmCharts: [{name: x, repo: 'http://@AT/charts'}]"},
		{name: "Helm chart in a base", k: "resources: [inner]", more: file("inner/kustomization.yaml", "helmCharts: [{name: x, repo: 'http://@AT/charts'}]")},
		{name: "Helm globals", k: base + "helmGlobals: {chartHome: ../../..}"},
		{name: "Helm in the form of old", k: "helmChartInflationGenerator: [{chartName: x, chartRepoUrl: 'http://@AT/charts'}]"},
		{name: "Helm generator", k: base + "generators: [g.yaml]", more: file("g.yaml", builtin("HelmChartInflationGenerator", "name: x\nrepo: http://@AT/charts"))},
		{name: "Helm generator in a list in place", k: base + "generators:\n- " + indent("apiVersion: builtin\nkind: ThingList\nitems:\n- {apiVersion: builtin, kind: HelmChartInflationGenerator, metadata: {name: x}, name: x, repo: 'http://@AT/charts'}\n")},
	}
}

// reading has files of this machine.
func reading() []hostile {
	return []hostile{
		{name: "absolute file", k: "configMapGenerator: [{name: x, files: [@DIR/secret]}]"},
		{name: "absolute environment", k: "secretGenerator: [{name: x, envs: [@DIR/secret]}]"},
		{name: "file above", k: "secretGenerator: [{name: x, files: [../../../../../../../../../../../../../..@DIR/secret]}]"},
		{name: "the process's environment", k: "configMapGenerator: [{name: x, files: [/proc/self/environ]}]"},
		{name: "absolute folder", k: "resources: [/etc]"},
		{name: "patch above", k: base + "patches: [{path: ../../../../../../../../../../../../../..@DIR/secret, target: {kind: Deployment}}]"},
		{name: "file through file:", k: "configMapGenerator: [{name: x, files: ['file://@DIR/secret']}]"},
		{name: "file above in backslashes", k: `configMapGenerator: [{name: x, files: ['..\..\..\..\etc\passwd']}]`},
		{name: "file above in escapes", k: "configMapGenerator: [{name: x, files: ['..%2f..%2f..%2f..%2fetc/passwd']}]"},
		{name: "builtin generator's absolute file", k: base + "generators: [g.yaml]", more: file("g.yaml", builtin("ConfigMapGenerator", "files: [@DIR/secret]"))},
	}
}
