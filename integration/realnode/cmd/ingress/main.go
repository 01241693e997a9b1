// Command ingress stands in for the ingress image of the reference distribution, which cannot be built from Go: it
// reads the little of that image's configuration that the distribution uses (one listener, one cluster, one route
// with its Host and retries, the admin port) and leads every request there.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"
)

func main() {
	file := flag.String("c", "/config/envoy.yaml", "configuration `FILE`")
	flag.String("l", "", "log level; not used")
	flag.String("base-id", "", "not used")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, *file); err != nil {
		fmt.Fprintln(os.Stderr, "ingress:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	c, err := parse(data)
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	admin := &http.Server{Addr: c.admin, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
	})}
	traffic := &http.Server{Addr: c.listen, Handler: newProxy(c)}
	ended := make(chan error, 2)
	for _, s := range []*http.Server{admin, traffic} {
		go func() { ended <- s.ListenAndServe() }()
	}
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	// Requests under way are answered.
	grace, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return errors.Join(traffic.Shutdown(grace), admin.Close())
}

// config is what the stand-in takes from the image's configuration.
type config struct {
	listen, admin string
	upstream      string // host:port
	host          string // sent upstream; empty: the request's own
	retries       int
	tryTimeout    time.Duration
}

type socket struct {
	SocketAddress struct {
		Address   string `json:"address"`
		PortValue int    `json:"port_value"`
	} `json:"socket_address"`
}

func (s socket) String() string {
	return fmt.Sprintf("%s:%d", s.SocketAddress.Address, s.SocketAddress.PortValue)
}

func parse(data []byte) (config, error) {
	var f struct {
		StaticResources struct {
			Listeners []struct {
				Address      socket `json:"address"`
				FilterChains []struct {
					Filters []struct {
						Config struct {
							RouteConfig struct {
								VirtualHosts []struct {
									Routes []struct {
										Route struct {
											HostRewrite string `json:"host_rewrite"`
											RetryPolicy struct {
												NumRetries    int    `json:"num_retries"`
												PerTryTimeout string `json:"per_try_timeout"`
											} `json:"retry_policy"`
										} `json:"route"`
									} `json:"routes"`
								} `json:"virtual_hosts"`
							} `json:"route_config"`
						} `json:"config"`
					} `json:"filters"`
				} `json:"filter_chains"`
			} `json:"listeners"`
			Clusters []struct {
				LoadAssignment struct {
					Endpoints []struct {
						LBEndpoints []struct {
							Endpoint struct {
								Address socket `json:"address"`
							} `json:"endpoint"`
						} `json:"lb_endpoints"`
					} `json:"endpoints"`
				} `json:"load_assignment"`
			} `json:"clusters"`
		} `json:"static_resources"`
		Admin struct {
			Address socket `json:"address"`
		} `json:"admin"`
	}
	if err := yaml.Unmarshal(data, &f); err != nil {
		return config{}, err
	}
	c := config{admin: f.Admin.Address.String(), tryTimeout: 15 * time.Second}
	for _, cluster := range f.StaticResources.Clusters {
		for _, locality := range cluster.LoadAssignment.Endpoints {
			for _, e := range locality.LBEndpoints {
				c.upstream = e.Endpoint.Address.String()
			}
		}
	}
	for _, listener := range f.StaticResources.Listeners {
		c.listen = listener.Address.String()
		for _, chain := range listener.FilterChains {
			for _, filter := range chain.Filters {
				for _, host := range filter.Config.RouteConfig.VirtualHosts {
					for _, r := range host.Routes {
						c.host, c.retries = r.Route.HostRewrite, r.Route.RetryPolicy.NumRetries
						if d, err := time.ParseDuration(r.Route.RetryPolicy.PerTryTimeout); err == nil {
							c.tryTimeout = d
						}
					}
				}
			}
		}
	}
	if c.listen == "" || c.upstream == "" {
		return config{}, errors.New("no listener, or no cluster with an endpoint")
	}
	return c, nil
}

// proxy leads requests upstream and repeats those that a gateway on the way could not deliver.
type proxy struct {
	config
	client *http.Client
}

func newProxy(c config) *proxy {
	transport := &http.Transport{MaxIdleConnsPerHost: 100, IdleConnTimeout: 30 * time.Second}
	return &proxy{config: c, client: &http.Client{Transport: transport, Timeout: c.tryTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

const maxBody = 10 << 20

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		http.Error(w, err.Error(), http.StatusRequestEntityTooLarge)
		return
	}
	for try := 0; ; try++ {
		response, err := p.try(r, body)
		last := try >= p.retries || r.Context().Err() != nil
		switch {
		case err != nil && last:
			http.Error(w, "upstream connect error: "+err.Error(), http.StatusServiceUnavailable)
			return
		case err != nil:
		case gatewayError(response.StatusCode) && !last:
			response.Body.Close()
		default:
			defer response.Body.Close()
			for name, values := range response.Header {
				w.Header()[name] = values
			}
			w.WriteHeader(response.StatusCode)
			_, _ = io.Copy(w, response.Body)
			return
		}
		select {
		case <-r.Context().Done():
		case <-time.After(25 * time.Millisecond << min(try, 4)):
		}
	}
}

func gatewayError(code int) bool {
	return code == http.StatusBadGateway || code == http.StatusServiceUnavailable || code == http.StatusGatewayTimeout
}

func (p *proxy) try(r *http.Request, body []byte) (*http.Response, error) {
	out, err := http.NewRequestWithContext(r.Context(), r.Method, "http://"+p.upstream+r.URL.RequestURI(), bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	out.Header = r.Header.Clone()
	out.Header.Del("Connection")
	if out.Host = p.host; p.host == "" {
		out.Host = r.Host
	}
	return p.client.Do(out)
}
