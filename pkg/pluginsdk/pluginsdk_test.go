package pluginsdk

import (
	"context"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// TestItIsGoPlugins: what Serve speaks is hashicorp/go-plugin's own protocol, so that its hosts can run
// such a plugin too.
func TestItIsGoPlugins(t *testing.T) {
	path := filepath.Join(t.TempDir(), "example")
	build := exec.Command("go", "build", "-o", path, "../plugintest/testdata/plugin")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	client := goplugin.NewClient(&goplugin.ClientConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: pluginwire.CookieKey, MagicCookieValue: pluginwire.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{1: {"wheelwright": services{}}, 2: {"wheelwright": services{}}},
		Cmd:              exec.Command(path, "good"), AllowedProtocols: []goplugin.Protocol{goplugin.ProtocolGRPC},
		AutoMTLS: true, SkipHostEnv: true, Logger: hclog.NewNullLogger(),
	})
	defer client.Kill()
	wire, err := client.Client()
	if err != nil {
		t.Fatal(err)
	}
	if v := client.NegotiatedVersion(); v != 1 {
		t.Errorf("version %d", v)
	}
	if err := wire.Ping(); err != nil {
		t.Error(err)
	}
	raw, err := wire.Dispense("wheelwright")
	if err != nil {
		t.Fatal(err)
	}
	hello, err := pluginwire.Greet(context.Background(), raw.(*grpc.ClientConn), "example", "test")
	if err != nil || hello.GetName() != "example" || len(hello.GetKinds()) != 3 {
		t.Errorf("got %v, %v", hello, err)
	}
}

func TestVerdicts(t *testing.T) {
	low, high := 99.0, 500.0
	for name, tt := range map[string]struct {
		got    *pluginv1.Verdict
		want   pluginv1.Outcome
		reason string
	}{
		"well":           {Judge("success", 99.9, &low, nil, 100, 10), pluginv1.Outcome_OUTCOME_PASS, ""},
		"too low":        {Judge("success", 93.1, &low, nil, 100, 10), pluginv1.Outcome_OUTCOME_FAIL, "success 93.1 < 99"},
		"too high":       {Judge("p99", 812, nil, &high, 100, 10), pluginv1.Outcome_OUTCOME_FAIL, "p99 812 > 500"},
		"few":            {Judge("success", 0, &low, nil, 3, 10), pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "success rests on 3 of at least 10"},
		"no number":      {Judge("success", math.NaN(), &low, nil, 100, 10), pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "success is not a number"},
		"no end":         {Judge("p99", math.Inf(1), nil, &high, 100, 10), pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "p99 is not a number"},
		"of none":        {Worst(), pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "nothing was looked at"},
		"a fail wins":    {Worst(Pass(1), Inconclusive("no data"), Fail(2, "bad")), pluginv1.Outcome_OUTCOME_FAIL, "bad"},
		"doubt wins":     {Worst(Pass(1), Inconclusive("no data"), Pass(1)), pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "no data"},
		"unsaid is none": {Worst(Pass(1), &pluginv1.Verdict{Reason: "?"}), pluginv1.Outcome_OUTCOME_INCONCLUSIVE, "a verdict says nothing"},
		"all well":       {Worst(Pass(1), Pass(2)), pluginv1.Outcome_OUTCOME_PASS, ""},
	} {
		if tt.got.GetOutcome() != tt.want || tt.got.GetReason() != tt.reason {
			t.Errorf("%s: got %v", name, tt.got)
		}
	}
	if v := Worst(Pass(1), Pass(2)); v.GetSample() != 3 {
		t.Errorf("got %v", v)
	}
}

func TestSuite(t *testing.T) {
	var s Suite
	var told []string
	tell := func(p *pluginv1.Progress) error {
		told = append(told, p.GetTest()+" "+p.GetState().String())
		return nil
	}
	if s.Report().GetVerdict().GetOutcome() != pluginv1.Outcome_OUTCOME_INCONCLUSIVE {
		t.Error("no test is a pass")
	}
	for name, v := range map[string]*pluginv1.Verdict{"a": Pass(1), "b": nil, "c": Fail(1, "it is blue")} {
		if err := s.Run(t.Context(), tell, name, func(context.Context) *pluginv1.Verdict { return v }); err != nil {
			t.Fatal(err)
		}
	}
	r := s.Report()
	if r.GetPassed() != 1 || r.GetFailed() != 1 || r.GetInconclusive() != 1 || r.GetVerdict().GetReason() != "c: it is blue" || len(told) != 6 {
		t.Errorf("got %v, %q", r, told)
	}
	if err := (Plugin{}).check(); err == nil || err.Error() != "Serve needs a Name and a Version and one of Conformance, Canary, Notifier" {
		t.Errorf("got %v", err)
	}
}
