package measure

import (
	"testing"
	"time"
)

const podList = `{"kind":"PodList","apiVersion":"v1","items":[
{"metadata":{"name":"b-canary-1","creationTimestamp":"2026-05-04T11:50:00Z"},"status":{"phase":"Running",
 "conditions":[{"type":"Ready","status":"True","lastTransitionTime":"2026-05-04T11:51:00Z"}],
 "initContainerStatuses":[{"name":"wait","restartCount":0,"state":{"terminated":{"reason":"Completed","exitCode":0,"finishedAt":"2026-05-04T11:50:20Z"}}}],
 "containerStatuses":[{"name":"app","restartCount":4,"state":{"running":{"startedAt":"2026-05-04T11:58:40Z"}},
  "lastState":{"terminated":{"reason":"OOMKilled","exitCode":137,"finishedAt":"2026-05-04T11:58:30Z"}}}]}},
{"metadata":{"name":"b-canary-2","creationTimestamp":"2026-05-04T11:58:00Z"},"status":{"phase":"Running",
 "conditions":[{"type":"Ready","status":"False","lastTransitionTime":"2026-05-04T11:58:10Z"}],
 "containerStatuses":[{"name":"app","restartCount":2,"state":{"waiting":{"reason":"CrashLoopBackOff"}},
  "lastState":{"terminated":{"reason":"Error","exitCode":1,"finishedAt":"2026-05-04T11:59:30Z"}}}]}},
{"metadata":{"name":"b-canary-3","creationTimestamp":"2026-05-04T11:59:45Z"},"status":{"phase":"Pending",
 "containerStatuses":[{"name":"app","restartCount":0,"state":{"waiting":{"reason":"ContainerCreating"}}}]}},
{"metadata":{"name":"b-canary-4","creationTimestamp":"2026-05-04T11:00:00Z","deletionTimestamp":"2026-05-04T11:59:00Z"},"status":{"phase":"Running"}},
{"metadata":{"name":"b-canary-5","creationTimestamp":"2026-05-04T11:00:00Z"},"status":{"phase":"Failed","reason":"Evicted"}}
]}`

func TestPodsAlone(t *testing.T) {
	pods, err := ReadPods([]byte(podList), "b-canary", 4, noon)
	if err != nil || len(pods.Pods) != 3 {
		t.Fatalf("%+v, %v", pods, err)
	}
	all := PodObjectives(time.Minute)
	restarts, unready := all[0], all[1]
	ready := Objective{Name: PodReadiness, Title: "ready pods", Unit: "%", Min: f(50)}
	for _, test := range []struct {
		o      Objective
		from   time.Time
		want   Outcome
		reason string
	}{
		{restarts, noon.Add(-2 * time.Minute), Fail, "restarts 3 > 0 over 1m, 3 pods (b-canary-1/app: OOMKilled; b-canary-2/app: Error)"},
		{restarts, noon.Add(-time.Minute), Fail, "restarts 1 > 0 over 1m, 3 pods (b-canary-2/app: Error)"},
		{restarts, noon.Add(-10 * time.Second), Pass, "restarts 0 <= 0 over 1m, 3 pods"},
		{restarts, time.Time{}, Fail, "restarts 6 > 0 over 1m, 3 pods (b-canary-1/app: OOMKilled; b-canary-2/app: Error)"},
		{unready, noon, Fail, "longest unready 110 s > 60 s over 1m, 3 pods (b-canary-2/app: CrashLoopBackOff)"},
		{ready, noon, Fail, "ready pods 25 % < 50 %, 3 pods (b-canary-2/app: CrashLoopBackOff; b-canary-3: not ready)"},
	} {
		v := Judge(noon, test.o, pods.Samples(test.o.Name, test.from))
		if v.Outcome != test.want || v.Reason != test.reason {
			t.Errorf("%s: %s %q\nwant %q", test.o.Name, v.Outcome, v.Reason, test.reason)
		}
	}
}

func TestNoPodsNoVerdict(t *testing.T) {
	none, err := ReadPods([]byte(`{"items":[]}`), "b-canary", 2, noon)
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range append(PodObjectives(time.Minute), Objective{Name: PodReadiness, Min: f(50)}) {
		if v := Judge(noon, o, none.Samples(o.Name, noon)); v.Outcome != Inconclusive || v.Reason != "no data: there is no pod of b-canary" {
			t.Errorf("%+v", v)
		}
	}
	one := Pods{Workload: "b-canary", Wanted: 1, At: noon.Add(-time.Hour), Pods: []Pod{{Name: "p", Ready: true}}}
	if v := Judge(noon, PodObjectives(time.Minute)[0], one.Samples(PodRestarts, noon)); v.Cause != Stale {
		t.Errorf("pods of an hour ago: %+v", v)
	}
	if v := Judge(noon, Objective{Name: "cpu", Max: f(1)}, one.Samples("cpu", noon)); v.Outcome != Inconclusive || v.Cause != NoBound {
		t.Errorf("what Kubernetes does not tell: %+v", v)
	}
	if _, err := ReadPods([]byte("<html>"), "b-canary", 1, noon); err == nil {
		t.Error("no list and no error")
	}
}
