package measure

import (
	"context"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// recorded are answers as servers give them, and what becomes of each as the value of a latency.
var recorded = []struct {
	name    string
	status  int
	body    string
	outcome Outcome
	cause   Cause
	reason  string // its beginning
}{
	{"vector", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1777896000.123,"92.5"]}]}}`, Pass, "", "p99 latency 92.5 ms <= 500 ms over 1m30s"},
	{"scalar", 200, `{"status":"success","data":{"resultType":"scalar","result":[1777896000,"600"]}}`, Fail, "", "p99 latency 600 ms > 500 ms over 1m30s"},
	{"infos", 200, `{"status":"success","infos":["PromQL info: metric might not be a counter"],"warnings":["PromQL warning: bucket label \"le\" is missing"],"data":{"resultType":"scalar","result":[1,"600"]}}`, Fail, "", "p99 latency 600 ms"},
	{"empty", 200, `{"status":"success","data":{"resultType":"vector","result":[]}}`, Inconclusive, NoData, "no data: the query of request-duration returned nothing"},
	{"three", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{"a":"1"},"value":[1,"1"]},{"metric":{"a":"2"},"value":[1,"2"]},{"metric":{"a":"3"},"value":[1,"3"]}]}}`, Inconclusive, WrongShape, "the query of request-duration returned a vector of 3, wants one number"},
	{"matrix", 200, `{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"],[2,"1"]]},{"metric":{"b":"c"},"values":[[1,"1"]]}]}}`, Inconclusive, WrongShape, "the query of request-duration returned a matrix of 2, wants one number"},
	{"string", 200, `{"status":"success","data":{"resultType":"string","result":[1,"hello"]}}`, Inconclusive, WrongShape, "the query of request-duration returned a string, wants one number"},
	{"histogram", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"histogram":[1,{"count":"3","sum":"4","buckets":[]}]}]}}`, Inconclusive, WrongShape, "the query of request-duration returned a histogram, wants one number"},
	{"NaN", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"NaN"]}]}}`, Inconclusive, NotANumber, "p99 latency is NaN"},
	{"+Inf", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"+Inf"]}]}}`, Inconclusive, NotANumber, "p99 latency is Inf"},
	{"a part", 200, `{"status":"success","warnings":["store east is down"],"data":{"resultType":"scalar","result":[1,"1"]}}`, Inconclusive, NoData, "Prometheus answers from a part of its data: store east is down"},
	{"bad query", 400, `{"status":"error","errorType":"bad_data","error":"1:5: parse error: unexpected end\nof input"}`, Inconclusive, WrongShape, "Prometheus refuses the query: bad_data: 1:5: parse error: unexpected end of input"},
	{"cannot be computed", 422, `{"status":"error","errorType":"execution","error":"found duplicate series"}`, Inconclusive, WrongShape, "Prometheus refuses the query: execution: found duplicate series"},
	{"too slow inside", 503, `{"status":"error","errorType":"timeout","error":"query timed out"}`, Inconclusive, Unreachable, "Prometheus answers 503: timeout: query timed out"},
	{"gateway", 503, "<html>\nupstream down", Inconclusive, Unreachable, "Prometheus answers 503: <html> upstream down"},
	{"stranger", 401, "no", Inconclusive, Unreachable, "Prometheus answers 401 Unauthorized: look at the secret"},
	{"no such page", 404, "404 page not found", Inconclusive, Unreachable, "Prometheus answers 404: 404 page not found"},
	{"page", 200, "<!doctype html><p>Sign in", Inconclusive, Unreachable, "the answer is not Prometheus's: <!doctype html>"},
	{"nothing", 200, "", Inconclusive, Unreachable, "the answer is not Prometheus's:"},
	{"null", 200, "null", Inconclusive, Unreachable, "the answer is not Prometheus's: null"},
	{"another kind", 200, `{"status":"success","data":{"resultType":"streams","result":[]}}`, Inconclusive, Unreachable, "the answer is not Prometheus's: a streams"},
	{"no numbers", 200, `{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,"x"]}]}}`, Inconclusive, Unreachable, "the answer is not Prometheus's: a vector"},
	{"number without quotes", 200, `{"status":"success","data":{"resultType":"scalar","result":[1,2]}}`, Inconclusive, Unreachable, "the answer is not Prometheus's: a scalar"},
	{"not even a value", 200, `{"status":"success","data":{"resultType":"vector","result":[{}]}}`, Inconclusive, Unreachable, "the answer is not Prometheus's: a vector"},
	{"10 MB", 200, `{"status":"success","data":{"resultType":"vector","result":[` + strings.Repeat(`{"metric":{},"value":[1,"1"]},`, 350_000), Inconclusive, WrongShape, "Prometheus answers more than 1024 KiB, wants one number"},
}

func TestAnswers(t *testing.T) {
	for _, test := range recorded {
		t.Run(test.name, func(t *testing.T) {
			p := client(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
				w.WriteHeader(test.status)
				fmt.Fprint(w, test.body)
			})
			v := Judge(noon, latency(), p.Samples(t.Context(), Query{Value: "up"}, noon))
			if v.Outcome != test.outcome || v.Cause != test.cause || !strings.HasPrefix(v.Reason, test.reason) || strings.Contains(v.Reason, "\n") {
				t.Errorf("%s %s %q, want %s %s %q", v.Outcome, v.Cause, v.Reason, test.outcome, test.cause, test.reason)
			}
		})
	}
}

// client is one of a server that answers with handle; the address is c's own where it has one.
func client(t *testing.T, c Config, handle http.HandlerFunc) *Prometheus {
	t.Helper()
	server := httptest.NewServer(handle)
	t.Cleanup(server.Close)
	if c.Address == "" {
		c.Address = server.URL
	}
	p, err := NewPrometheus(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func scalar(w http.ResponseWriter, v string) {
	fmt.Fprintf(w, `{"status":"success","data":{"resultType":"scalar","result":[1,%q]}}`, v)
}

// Sample and newest say how far the value is to be trusted; what they answer is looked at as hard as it.
func TestThreeQueries(t *testing.T) {
	const nothing = `{"status":"success","data":{"resultType":"vector","result":[]}}`
	number := func(v string) string {
		return fmt.Sprintf(`{"status":"success","data":{"resultType":"vector","result":[{"metric":{},"value":[1,%q]}]}}`, v)
	}
	fresh := number(fmt.Sprint(noon.Add(-20 * time.Second).Unix()))
	for _, test := range []struct {
		name, value, sample, newest string
		outcome                     Outcome
		reason                      string
	}{
		{"good", number("99.5"), number("119.7"), fresh, Pass, "success rate 99.5 % >= 99 % over 1m, 120 requests"},
		{"idle", number("NaN"), number("0"), fresh, Inconclusive, "no traffic: 0 requests in 1m, wants 50"},
		{"never scraped", nothing, nothing, nothing, Inconclusive, "no traffic: 0 requests in 1m, wants 50"},
		{"few", number("0"), number("12"), fresh, Inconclusive, "no traffic: 12 requests in 1m, wants 50"},
		{"old", number("99.5"), number("900"), number(fmt.Sprint(noon.Add(-4 * time.Minute).Unix())), Inconclusive, "stale: newest sample is 4m old"},
		{"of no time", number("99.5"), number("900"), nothing, Inconclusive, "stale: there is no newest sample"},
		{"of a strange time", number("99.5"), number("900"), number("NaN"), Inconclusive, "stale: there is no newest sample"},
		{"many samples", number("99.5"), `{"status":"success","data":{"resultType":"matrix","result":[]}}`, fresh, Inconclusive, "the query for the number of requests wants to return one number"},
		{"strange newest", number("99.5"), number("900"), `{"status":"success","data":{"resultType":"string","result":[1,"x"]}}`, Inconclusive, "the query for the newest sample wants to return one number"},
		{"sample fails", number("99.5"), `{"status":"error","errorType":"internal","error":"disk"}`, fresh, Inconclusive, "the number of requests: Prometheus answers 200: internal: disk"},
	} {
		p := client(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, map[string]string{"v": test.value, "s": test.sample, "n": test.newest}[r.FormValue("query")])
		})
		v := Judge(noon, rate(), p.Samples(t.Context(), Query{Value: "v", Sample: "s", Newest: "n"}, noon))
		if v.Outcome != test.outcome || v.Reason != test.reason {
			t.Errorf("%s: %s %q", test.name, v.Outcome, v.Reason)
		}
	}
	p := client(t, Config{}, nil)
	if s := p.Samples(t.Context(), Query{}, noon); s.Problem != "no data: there is no query" {
		t.Errorf("%+v", s)
	}
}

func TestRequest(t *testing.T) {
	for _, long := range []bool{false, true} {
		query, method := "up > 1", http.MethodGet
		if long {
			query, method = "up"+strings.Repeat(" or up", 1000), http.MethodPost
		}
		p := client(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
			if r.Method != method || r.URL.Path != "/under/prom/api/v1/query" || r.FormValue("tenant") != "a" || r.FormValue("query") != query ||
				r.FormValue("time") != "1777896000.250" || r.FormValue("timeout") != "5s" {
				t.Errorf("%s %s", r.Method, r.URL)
			}
			scalar(w, "1")
		})
		at := p.endpoint
		again, err := NewPrometheus(Config{Address: at.Scheme + "://" + at.Host + "/under/prom/?tenant=a"})
		if err != nil {
			t.Fatal(err)
		}
		defer again.Close()
		if s := again.Samples(t.Context(), Query{Value: query}, noon.Add(250*time.Millisecond)); len(s.Values) != 1 {
			t.Errorf("%+v", s)
		}
	}
}

func TestCredentials(t *testing.T) {
	const secret = "s3cr3t/+&"
	for _, test := range []struct {
		name   string
		secret map[string][]byte
		user   string
		want   string
	}{
		{"token", map[string][]byte{"token": []byte(secret + "\n")}, "", "Bearer " + secret},
		{"basic", map[string][]byte{"username": []byte("ann"), "password": []byte(secret)}, "", "Basic YW5uOnMzY3IzdC8rJg=="},
		{"in the address", nil, url.UserPassword("ann", secret).String() + "@", "Basic YW5uOnMzY3IzdC8rJg=="},
		{"none", nil, "", ""},
	} {
		var got string
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			got = r.Header.Get("Authorization")
			http.Error(w, "you said "+got+" and "+secret+" to "+r.URL.String(), http.StatusBadGateway)
		}))
		p, err := NewPrometheus(Config{Address: "http://" + test.user + strings.TrimPrefix(server.URL, "http://"), Secret: test.secret})
		if err != nil {
			t.Fatal(err)
		}
		s := p.Samples(t.Context(), Query{Value: "up"}, noon)
		if got != test.want {
			t.Errorf("%s: sent %q", test.name, got)
		}
		server.Close() // and now nobody is there
		away := p.Samples(t.Context(), Query{Value: "up"}, noon)
		for _, problem := range []string{s.Problem, away.Problem} {
			if problem == "" || test.want != "" && (strings.Contains(problem, secret) || strings.Contains(problem, "YW5u") || strings.Contains(problem, url.QueryEscape(secret))) {
				t.Errorf("%s: said %q", test.name, problem)
			}
		}
		if !strings.HasPrefix(away.Problem, "Prometheus unreachable: dial tcp") || away.Cause != Unreachable {
			t.Errorf("%s: %+v", test.name, away)
		}
		p.Close()
	}
}

func TestConfigIsChecked(t *testing.T) {
	for want, c := range map[string]Config{
		"not an http or https URL":         {Address: "ftp://u:hunter2@x"},
		"is not an http":                   {Address: "http://u:hunter2@[::1"},
		"both username and password":       {Address: "http://x", Secret: map[string][]byte{"username": []byte("hunter2")}},
		"ca.crt of the secret":             {Address: "https://x", Secret: map[string][]byte{"ca.crt": []byte("hunter2")}},
		"tls.crt and tls.key of the secre": {Address: "https://x", Secret: map[string][]byte{"tls.key": []byte("hunter2")}},
	} {
		if _, err := NewPrometheus(c); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestTLSWithAPrivateCA(t *testing.T) {
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { scalar(w, "1") }))
	server.Config.ErrorLog = log.New(io.Discard, "", 0)
	server.StartTLS()
	defer server.Close()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	for _, test := range []struct {
		c    Config
		want string
	}{
		{Config{}, "Prometheus unreachable: tls: failed to verify certificate"},
		{Config{Secret: map[string][]byte{"ca.crt": ca}}, ""},
		{Config{Insecure: true}, ""},
	} {
		test.c.Address = server.URL
		p, err := NewPrometheus(test.c)
		if err != nil {
			t.Fatal(err)
		}
		if s := p.Samples(t.Context(), Query{Value: "1"}, noon); !strings.HasPrefix(s.Problem, test.want) || (s.Problem == "") != (test.want == "") {
			t.Errorf("%q, want %q", s.Problem, test.want)
		}
		p.Close()
	}
}

func TestHang(t *testing.T) {
	release := make(chan struct{})
	hang := func(w http.ResponseWriter, r *http.Request) {
		if r.FormValue("query") == "body" {
			fmt.Fprint(w, `{"status":`)
			w.(http.Flusher).Flush()
		}
		<-release
	}
	p := client(t, Config{Timeout: 50 * time.Millisecond}, hang)
	defer close(release)
	for _, query := range []string{"head", "body"} {
		if s := p.Samples(t.Context(), Query{Value: query}, noon); !strings.HasPrefix(s.Problem, "Prometheus unreachable: no answer within 50ms (127.0.0.1:") || s.Cause != Unreachable {
			t.Errorf("%s: %+v", query, s)
		}
	}
	short, done := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer done()
	if s := p.Samples(short, Query{Value: "head"}, noon); !strings.HasPrefix(s.Problem, "Prometheus unreachable: no answer before the deadline (127.0.0.1:") {
		t.Errorf("%+v", s)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s := p.Samples(ctx, Query{Value: "head"}, noon); !strings.HasPrefix(s.Problem, "Prometheus unreachable: context canceled (127.0.0.1:") {
		t.Errorf("%+v", s)
	}
	silent, err := net.Listen("tcp", "127.0.0.1:0") // takes connections and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	q, err := NewPrometheus(Config{Address: "http://" + silent.Addr().String(), Timeout: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	if s := q.Samples(t.Context(), Query{Value: "up"}, noon); !strings.HasPrefix(s.Problem, "Prometheus unreachable: no answer within 50ms (127.0.0.1:") {
		t.Errorf("%+v", s)
	}
}

// Credentials go to the server that was named and to no other.
func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("another host was asked") }))
	defer other.Close()
	p := client(t, Config{Secret: map[string][]byte{"token": []byte("let-me-in")}}, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, other.URL+"/api/v1/query", http.StatusTemporaryRedirect)
	})
	if s := p.Samples(t.Context(), Query{Value: "up"}, noon); !strings.HasPrefix(s.Problem, "Prometheus unreachable: it redirects to another host, "+other.URL) {
		t.Errorf("%+v", s)
	}
	p = client(t, Config{}, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.String(), http.StatusFound) })
	if s := p.Samples(t.Context(), Query{Value: "up"}, noon); !strings.HasPrefix(s.Problem, "Prometheus unreachable: it redirects without end (127.0.0.1:") {
		t.Errorf("%+v", s)
	}
	p = client(t, Config{}, func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/moved") {
			http.Redirect(w, r, "/moved"+r.URL.RequestURI(), http.StatusTemporaryRedirect)
			return
		}
		scalar(w, "1")
	})
	if s := p.Samples(t.Context(), Query{Value: "up"}, noon); s.Problem != "" {
		t.Errorf("%+v", s)
	}
}
