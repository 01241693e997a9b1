package asker

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/protobuf/proto"

	"github.com/wheelwright-dev/wheelwright/pkg/probe"
)

// askGRPC makes the one call of grpc.health.v1 over plain HTTP/2: a unary call is a request with a length
// before its message and a status behind the answer's. That way the server's certificate is the probe's
// to judge, and a connection lasts for one call.
func (a Asker) askGRPC(ctx context.Context, g *probe.GRPC, at Target) (outcome, error) {
	message, err := proto.Marshal(&grpc_health_v1.HealthCheckRequest{Service: g.Service})
	if err != nil {
		return wrong("the name %q cannot be asked for", g.Service), nil
	}
	protocols := new(http.Protocols)
	scheme := "http://"
	if g.TLS {
		scheme = "https://"
		protocols.SetHTTP2(true)
	} else {
		protocols.SetUnencryptedHTTP2(true)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, scheme+at.String()+grpc_health_v1.Health_Check_FullMethodName, bytes.NewReader(frame(message)))
	if err != nil {
		return wrong("%s cannot be asked", at), nil
	}
	r.Host = at.authority(g.TLS)
	r.Header.Set("Content-Type", "application/grpc")
	r.Header.Set("Te", "trailers")
	r.Header.Set("User-Agent", "wheelwright-probe")
	transport := a.transport(&tls.Config{ServerName: at.name(), InsecureSkipVerify: g.Insecure, MinVersion: tls.VersionTLS12}, protocols)
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(r)
	if err != nil {
		return outcome{}, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(io.LimitReader(response.Body, maxBody))
	if err != nil {
		return outcome{}, err
	}
	return judgeGRPC(g, response, body, at), nil
}

// frame puts the head of an uncompressed message before it.
func frame(message []byte) []byte {
	return append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
}

const (
	okay          = "0"
	notFound      = "5"
	unimplemented = "12"
	unavailable   = "14"
)

func judgeGRPC(g *probe.GRPC, response *http.Response, body []byte, at Target) outcome {
	if response.StatusCode != http.StatusOK || !strings.HasPrefix(response.Header.Get("Content-Type"), "application/grpc") {
		return wrong("%s answers %s, which is no gRPC", at, response.Status)
	}
	status := response.Trailer.Get("Grpc-Status")
	said := response.Trailer.Get("Grpc-Message")
	if status == "" { // an answer without a message has it all in its head
		status, said = response.Header.Get("Grpc-Status"), response.Header.Get("Grpc-Message")
	}
	if plain, err := url.PathUnescape(said); err == nil {
		said = plain
	}
	switch status {
	case okay:
	case notFound:
		return wrong("%s does not know the service %q", at, g.Service)
	case unimplemented:
		return wrong("%s has no grpc.health.v1", at)
	case unavailable:
		return outcome{message: fmt.Sprintf("%s is unavailable: %s", at, said)}
	default:
		return wrong("%s answers with status %q: %s", at, status, said)
	}
	if len(body) < 5 || body[0] != 0 || int(binary.BigEndian.Uint32(body[1:5])) != len(body)-5 {
		return wrong("%s answers what is no single message", at)
	}
	var answer grpc_health_v1.HealthCheckResponse
	if err := proto.Unmarshal(body[5:], &answer); err != nil {
		return wrong("%s answers what is no health", at)
	}
	if s := answer.GetStatus(); s != grpc_health_v1.HealthCheckResponse_SERVING {
		name := strconv.Itoa(int(s))
		if n, ok := grpc_health_v1.HealthCheckResponse_ServingStatus_name[int32(s)]; ok {
			name = n
		}
		return wrong("%s says %s of %q", at, name, g.Service)
	}
	return outcome{passed: true, reached: true}
}
