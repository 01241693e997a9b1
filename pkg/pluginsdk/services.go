package pluginsdk

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"strings"

	goplugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/wheelwright-dev/wheelwright/pkg/pluginwire"
	pluginv1 "github.com/wheelwright-dev/wheelwright/proto/wheelwright/plugin/v1"
)

// services puts a Plugin onto go-plugin's server.
type services struct {
	goplugin.NetRPCUnsupportedPlugin
	plugin Plugin
}

func (s services) GRPCServer(_ *goplugin.GRPCBroker, server *grpc.Server) error {
	pluginv1.RegisterPluginServiceServer(server, front{plugin: s.plugin})
	if s.plugin.Conformance != nil {
		pluginv1.RegisterConformanceServiceServer(server, conformance{tests: s.plugin.Conformance})
	}
	if s.plugin.Canary != nil {
		pluginv1.RegisterCanaryServiceServer(server, canary{Canary: s.plugin.Canary})
	}
	if s.plugin.Notifier != nil {
		pluginv1.RegisterNotifierServiceServer(server, notifier{Notifier: s.plugin.Notifier})
	}
	return nil
}

// GRPCClient is the half that a host would have; hosts have pluginwire.
func (services) GRPCClient(_ context.Context, _ *goplugin.GRPCBroker, conn *grpc.ClientConn) (any, error) {
	return conn, nil
}

type front struct {
	pluginv1.UnimplementedPluginServiceServer
	plugin Plugin
}

func (f front) Handshake(_ context.Context, r *pluginv1.HandshakeRequest) (*pluginv1.HandshakeResponse, error) {
	contract, ok := pluginwire.Negotiate(r.GetContracts(), pluginwire.Contracts())
	if !ok {
		return nil, status.Errorf(codes.FailedPrecondition, "%s %s speaks the contracts %s, none of %s",
			f.plugin.Name, f.plugin.Version, strings.Join(pluginwire.Contracts(), ", "), strings.Join(r.GetContracts(), ", "))
	}
	return &pluginv1.HandshakeResponse{Contract: contract, Name: f.plugin.Name, Version: f.plugin.Version, Kinds: f.plugin.kinds()}, nil
}

func (f front) CheckHealth(ctx context.Context, _ *pluginv1.CheckHealthRequest) (*pluginv1.CheckHealthResponse, error) {
	if f.plugin.Health == nil {
		return &pluginv1.CheckHealthResponse{Healthy: true}, nil
	}
	if err := f.plugin.Health(ctx); err != nil {
		return &pluginv1.CheckHealthResponse{Reason: err.Error()}, nil
	}
	return &pluginv1.CheckHealthResponse{Healthy: true}, nil
}

type conformance struct {
	pluginv1.UnimplementedConformanceServiceServer
	tests Conformance
}

func (c conformance) DescribeConformance(ctx context.Context, r *pluginv1.DescribeConformanceRequest) (*pluginv1.DescribeConformanceResponse, error) {
	return c.tests.Describe(ctx, r)
}

func (c conformance) Run(r *pluginv1.RunRequest, stream grpc.ServerStreamingServer[pluginv1.RunResponse]) error {
	report, err := c.tests.Run(stream.Context(), r, func(p *pluginv1.Progress) error {
		return stream.Send(&pluginv1.RunResponse{Message: &pluginv1.RunResponse_Progress{Progress: p}})
	})
	switch {
	case err != nil:
		return err
	case report == nil:
		return errors.New("the plugin made no report")
	}
	return stream.Send(&pluginv1.RunResponse{Message: &pluginv1.RunResponse_Report{Report: report}})
}

type canary struct {
	pluginv1.UnsafeCanaryServiceServer
	Canary
}

func (c canary) DescribeCanary(ctx context.Context, r *pluginv1.DescribeCanaryRequest) (*pluginv1.DescribeCanaryResponse, error) {
	return c.Describe(ctx, r)
}

func (c canary) Follow(ctx context.Context, r *pluginv1.FollowRequest) (*pluginv1.FollowResponse, error) {
	f, ok := c.Canary.(Follower)
	if !ok {
		return nil, status.Error(codes.Unimplemented, "the plugin leads itself: its courses follow nobody")
	}
	return f.Follow(ctx, r)
}

type notifier struct {
	pluginv1.UnsafeNotifierServiceServer
	Notifier
}

// unary and stream turn a panic into an error and a log entry, and a missed deadline into its code.
func (p Plugin) unary(ctx context.Context, r any, info *grpc.UnaryServerInfo, handle grpc.UnaryHandler) (answer any, err error) {
	defer func() { err = p.settle(info.FullMethod, err, recover()) }()
	return handle(ctx, r)
}

func (p Plugin) stream(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handle grpc.StreamHandler) (err error) {
	defer func() { err = p.settle(info.FullMethod, err, recover()) }()
	return handle(srv, ss)
}

func (p Plugin) settle(method string, err error, panicked any) error {
	if panicked != nil {
		p.Log.Error("panic in a call", slog.String("method", method), slog.String("error", fmt.Sprint(panicked)), slog.String("stack", string(debug.Stack())))
		return status.Errorf(codes.Internal, "panic: %v", panicked)
	}
	if _, ok := status.FromError(err); err != nil && !ok && (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled)) {
		return status.FromContextError(err).Err()
	}
	return err
}
