module github.com/wheelwright-dev/wheelwright/integration/controlplane/istio

go 1.26.0

require istio.io/api v1.31.1 // indirect
