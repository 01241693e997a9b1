package reversal_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/wheelwright-dev/wheelwright/pkg/fleet"
	"github.com/wheelwright-dev/wheelwright/spoke/internal/reversal"
)

func TestJudge(t *testing.T) {
	for _, p := range pairs {
		t.Run(p.name, func(t *testing.T) {
			judge(t, p, nil)
		})
	}
	if len(pairs) != 20 {
		t.Errorf("%d pairs, want 20", len(pairs))
	}
}

func judge(t *testing.T, p pair, stored []string) reversal.Verdict {
	t.Helper()
	got := reversal.Judge(p.definition(t, p.old), p.definition(t, p.next), map[string][]string{p.crd(): stored})
	if got.Verdict != p.want {
		t.Errorf("got %s, want %s: %q", got.Verdict, p.want, got.Reasons)
	}
	if (p.want == fleet.Reversible) != (len(got.Reasons) == 0) || p.reason != "" && (len(got.Reasons) == 0 || !strings.Contains(got.Reasons[0], p.reason)) {
		t.Errorf("reasons %q, want %q first", got.Reasons, p.reason)
	}
	if p.want != fleet.OneWay && (p.want == fleet.ReversibleKeepingCRDs) != slices.Equal(got.Keep, []string{p.crd()}) {
		t.Errorf("%s keeps %q", p.want, got.Keep)
	}
	return got
}

// What cannot be seen in the definitions alone.
func TestJudgeByWhatIsStored(t *testing.T) {
	same := spec(v("v1", true, true, plain) + v("v1alpha1", false, false, plain))
	judge(t, pair{name: "stored-elsewhere", old: spec(v("v1", true, true, plain)), next: same, want: fleet.ReversibleKeepingCRDs,
		reason: "objects are stored as v1alpha1"}, []string{"v1alpha1", "v1"})
	judge(t, pair{name: "stored-goes", old: same, next: spec(v("v1", true, true, plain)), want: fleet.OneWay,
		reason: "v1alpha1 goes, and status.storedVersions still names it"}, []string{"v1alpha1", "v1"})
	judge(t, pair{name: "migrated", old: same, next: spec(v("v1", true, true, plain)), want: fleet.Reversible}, []string{"v1"})
}

func TestJudgeOfWhatIsAroundTheSchema(t *testing.T) {
	with := func(name string, stored bool, more string) string {
		return "- {name: " + name + ", served: true, storage: " + map[bool]string{true: "true", false: "false"}[stored] + ", schema: {openAPIV3Schema: " + plain + "}, " + more + "}\n"
	}
	status, scale := "subresources: {status: {}}", "subresources: {scale: {specReplicasPath: .spec.n, statusReplicasPath: .status.n}}"
	selectable := "selectableFields: [{jsonPath: .spec.size}]"
	external := strings.ReplaceAll(hook, "service: {namespace: shop, name: converter}", "url: https://convert.example.com")
	v1, both := v("v1", true, true, plain), v("v1", true, true, plain)+v("v2", true, false, plain)
	moved := v("v2", true, true, plain)
	for _, p := range []pair{
		{name: "status-added", old: spec(v1), next: spec(with("v1", true, status)), want: fleet.Reversible},
		{name: "status-added-and-kept", old: spec(v1), next: spec(with("v1", false, status) + moved), want: fleet.OneWay, reason: "status becomes a subresource"},
		{name: "status-removed-and-kept", old: spec(with("v1", true, status)), next: spec(v("v1", true, false, plain) + moved), want: fleet.OneWay, reason: "no status subresource"},
		{name: "scale-removed", old: spec(with("v1", true, scale)), next: spec(v1), want: fleet.Reversible},
		{name: "scale-removed-and-kept", old: spec(with("v1", true, scale)), next: spec(v("v1", true, false, plain) + moved), want: fleet.OneWay, reason: "scale subresource"},
		{name: "selectable-removed-and-kept", old: spec(with("v1", true, selectable)), next: spec(v("v1", true, false, plain) + moved), want: fleet.OneWay, reason: ".spec.size cannot be selected"},
		{name: "webhook-between-served", old: spec(both), next: spec(both) + hook, want: fleet.OneWay, reason: "from None to a webhook"},
		{name: "webhook-stays", old: spec(both) + hook, next: spec(both) + hook, want: fleet.Reversible},
		{name: "webhook-of-old-does-not-know", old: spec(v1) + hook, next: spec(v("v1", true, false, plain)+moved) + hook, want: fleet.OneWay, reason: "of the release before cannot convert the stored v2"},
		{name: "webhook-elsewhere", old: spec(v1), next: spec(v("v1", true, false, plain)+moved) + external, want: fleet.ReversibleKeepingCRDs, reason: "stored as v2"},
		{name: "storage-back-drops", old: spec(v("v1", true, true, noNotes) + v("v2", true, false, plain)), next: spec(v("v1", true, false, noNotes) + v("v2", true, true, plain)),
			want: fleet.ReversibleKeepingCRDs, reason: "spec.notes was dropped before"},
		{name: "legacy-preserve", old: "preserveUnknownFields: true\n" + spec(v1), next: spec(v1), want: fleet.OneWay, reason: "loses the fields"},
		{name: "nothing", want: fleet.Reversible},
	} {
		t.Run(p.name, func(t *testing.T) { judge(t, p, nil) })
	}
}

func TestJudgeNamesTheWorstFirst(t *testing.T) {
	added, gone := pairs[1], pairs[15]
	old := append(added.definition(t, added.old), gone.definition(t, gone.old)...)
	next := append(added.definition(t, added.next), gone.definition(t, gone.next)...)
	got := reversal.Judge(old, next, nil)
	if got.Verdict != fleet.OneWay || len(got.Reasons) != 2 || !strings.HasPrefix(got.Reasons[0], gone.crd()) || !slices.Equal(got.Keep, []string{added.crd()}) {
		t.Errorf("got %+v", got)
	}
}
