package render

import (
	"errors"
	"net/http"
)

// denyHTTP takes away the transport that kustomize's own HTTP client uses.
func denyHTTP() {
	http.DefaultTransport = denied{}
}

type denied struct{}

func (denied) RoundTrip(*http.Request) (*http.Response, error) {
	return nil, errors.New("nothing is fetched while rendering")
}
