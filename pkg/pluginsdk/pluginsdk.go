// Package pluginsdk is what the author of a plugin in Go needs: Serve takes the author's Conformance,
// Canary or Notifier, does the handshake, mutual TLS and negotiation with the spoke that started the
// process, ends in good order, and puts a panic into the log instead of onto the wire. It reads no
// configuration: a plugin gets its arguments and environment from spoke.yaml.
//
// The messages are those of proto/wheelwright/plugin/v1, whose comments are the contract. In short: keep
// nothing between calls, do no harm when called twice, keep the deadline, return an error where the work
// could not be done, and a Verdict, made with Pass, Fail or Inconclusive, where it could.
//
// A whole plugin:
//
//	package main
//
//	import (
//		"context"
//		"net/http"
//
//		"github.com/wheelwright-dev/wheelwright/pkg/pluginsdk"
//		pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
//	)
//
//	type smoke struct{ url string }
//
//	func (s smoke) Describe(context.Context, *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error) {
//		return &pluginv1.DescribeConformanceResponse{Tests: []*pluginv1.Test{{Name: "home", Moment: pluginv1.Moment_MOMENT_BEFORE_TRAFFIC}}}, nil
//	}
//
//	func (s smoke) Run(ctx context.Context, r *pluginv1.RunRequest, tell func(*pluginv1.Progress) error) (*pluginv1.Report, error) {
//		var suite pluginsdk.Suite
//		if r.GetMoment() == pluginv1.Moment_MOMENT_BEFORE_TRAFFIC {
//			err := suite.Run(ctx, tell, "home", func(ctx context.Context) *pluginv1.Verdict {
//				request, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url, nil)
//				if err != nil {
//					return pluginsdk.Inconclusive("%v", err)
//				}
//				answer, err := http.DefaultClient.Do(request)
//				if err != nil {
//					return pluginsdk.Inconclusive("%v", err)
//				}
//				answer.Body.Close()
//				if answer.StatusCode != http.StatusOK {
//					return pluginsdk.Fail(1, "%s answers %s", s.url, answer.Status)
//				}
//				return pluginsdk.Pass(1)
//			})
//			if err != nil {
//				return nil, err
//			}
//		}
//		return suite.Report(), nil
//	}
//
//	func main() {
//		pluginsdk.Serve(pluginsdk.Plugin{Name: "smoke", Version: "1.0.0", Conformance: smoke{url: "http://backend-canary/healthz"}})
//	}
//
// `spoke plugin check PATH` tells whether it keeps the contract.
package pluginsdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// Conformance runs tests. tell may be called from one goroutine at a time; its error means that nobody
// listens any more.
type Conformance interface {
	Describe(context.Context, *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error)
	Run(ctx context.Context, r *pluginv1.RunRequest, tell func(*pluginv1.Progress) error) (*pluginv1.Report, error)
}

// Canary leads traffic and measures. Every method is told the whole wanted state and may be called again.
type Canary interface {
	Describe(context.Context, *pluginv1.DescribeCanaryRequest) (*pluginv1.DescribeCanaryResponse, error)
	Plan(context.Context, *pluginv1.PlanRequest) (*pluginv1.PlanResponse, error)
	Step(context.Context, *pluginv1.StepRequest) (*pluginv1.StepResponse, error)
	Measure(context.Context, *pluginv1.MeasureRequest) (*pluginv1.MeasureResponse, error)
	Promote(context.Context, *pluginv1.PromoteRequest) (*pluginv1.PromoteResponse, error)
	Abort(context.Context, *pluginv1.AbortRequest) (*pluginv1.AbortResponse, error)
}

// Follower is a Canary that lets somebody else on the cluster lead, and says how far they are. Its plans have
// courses that follow; a Canary without it has none of those.
type Follower interface {
	Follow(context.Context, *pluginv1.FollowRequest) (*pluginv1.FollowResponse, error)
}

// Notifier tells people.
type Notifier interface {
	Notify(context.Context, *pluginv1.NotifyRequest) (*pluginv1.NotifyResponse, error)
}

// Plugin is what one process serves: a name, a version, and at least one of the three.
type Plugin struct {
	Name    string
	Version string

	Conformance Conformance
	Canary      Canary
	Notifier    Notifier

	// Health says why the plugin cannot do its work now; nil: it always can.
	Health func(context.Context) error
	// Log gets what the SDK has to say; nil: Logger().
	Log *slog.Logger
}

// How long calls in flight may take once the process is asked to end, and how long after that, once their
// contexts are cancelled. A spoke kills it a second after it asked, and a busy machine takes its time.
const (
	grace     = 600 * time.Millisecond
	cancelled = 100 * time.Millisecond
)

// Logger writes JSON lines with a level to the process's standard error, which is where a spoke reads.
// Make it before Serve.
func Logger() *slog.Logger {
	return slog.New(slog.NewJSONHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Kubeconfig is the file with the plugin's short-lived credentials for the cluster; empty where
// spoke.yaml grants it none. It is replaced before they expire: read it for every call.
func Kubeconfig() string { return os.Getenv("KUBECONFIG") }

// Serve serves until the spoke ends the process or SIGTERM comes, and returns then; calls in flight get
// a moment to end. In a process that no spoke started, and where p serves nothing, it says so and exits.
func Serve(p Plugin) {
	if err := p.check(); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(2)
	}
	if os.Getenv(pluginwire.CookieKey) != pluginwire.CookieValue {
		fmt.Fprintf(os.Stderr, "%s %s is a plugin of Wheelwright: name it under plugins in spoke.yaml, or try it with `spoke plugin check PATH`\n", p.Name, p.Version)
		os.Exit(2)
	}
	if p.Log == nil {
		p.Log = Logger()
	}
	var server atomic.Pointer[grpc.Server]
	serving, over := context.WithCancel(context.Background())
	defer over()
	back := standardStreams()
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(ended)
	go func() {
		<-ended
		over()
		if s := server.Load(); s == nil || !end(s, grace) { // where none is, nothing is served yet
			os.Exit(0)
		}
	}()
	goplugin.Serve(&goplugin.ServeConfig{
		HandshakeConfig:  goplugin.HandshakeConfig{MagicCookieKey: pluginwire.CookieKey, MagicCookieValue: pluginwire.CookieValue},
		VersionedPlugins: map[int]goplugin.PluginSet{1: {"wheelwright": services{plugin: p}}},
		GRPCServer: func(options []grpc.ServerOption) *grpc.Server {
			s := grpc.NewServer(append(options,
				grpc.MaxRecvMsgSize(pluginwire.MaxMessage), grpc.MaxSendMsgSize(pluginwire.MaxMessage),
				grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, _ *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (any, error) {
					back()
					return handle(ctx, r)
				}, p.unary), grpc.ChainStreamInterceptor(asideUntil(serving), p.stream))...)
			server.Store(s)
			return s
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Warn, Output: os.Stderr, JSONFormat: true}),
	})
}

// standardStreams answers what puts the process's standard streams back. go-plugin puts pipes in their
// place, and what is in those when a process crashes is lost: the very lines that say why.
func standardStreams() func() {
	out, errs := os.Stdout, os.Stderr
	return sync.OnceFunc(func() { os.Stdout, os.Stderr = out, errs })
}

// asideUntil ends go-plugin's own stream of standard output with serving. A host reads it as long as the
// process is there, and so no end in good order would come before grace is over.
func asideUntil(serving context.Context) grpc.StreamServerInterceptor {
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) error {
		if strings.HasPrefix(info.FullMethod, "/wheelwright.plugin.") {
			return handle(srv, ss)
		}
		ctx, cancel := context.WithCancel(ss.Context())
		defer cancel()
		defer context.AfterFunc(serving, cancel)()
		return handle(srv, bounded{ServerStream: ss, ctx: ctx})
	}
}

// bounded is a stream with a context that ends earlier than its own.
type bounded struct {
	grpc.ServerStream
	ctx context.Context
}

func (b bounded) Context() context.Context { return b.ctx }

// end stops as soon as the calls in flight are over, and after grace cancels them. It is false where one of
// them minds neither: gRPC's server waits for it, however it is stopped.
func end(s *grpc.Server, grace time.Duration) bool {
	done := make(chan struct{})
	go func() {
		s.GracefulStop()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(grace):
	}
	go s.Stop()
	select {
	case <-done:
		return true
	case <-time.After(cancelled):
		return false
	}
}

func (p Plugin) check() error {
	var missing []string
	if p.Name == "" {
		missing = append(missing, "a Name")
	}
	if p.Version == "" {
		missing = append(missing, "a Version")
	}
	if len(p.kinds()) == 0 {
		missing = append(missing, "one of Conformance, Canary, Notifier")
	}
	if len(missing) > 0 {
		return errors.New("Serve needs " + strings.Join(missing, " and "))
	}
	return nil
}

func (p Plugin) kinds() []pluginv1.Kind {
	var kinds []pluginv1.Kind
	if p.Conformance != nil {
		kinds = append(kinds, pluginv1.Kind_KIND_CONFORMANCE)
	}
	if p.Canary != nil {
		kinds = append(kinds, pluginv1.Kind_KIND_CANARY)
	}
	if p.Notifier != nil {
		kinds = append(kinds, pluginv1.Kind_KIND_NOTIFIER)
	}
	return kinds
}
