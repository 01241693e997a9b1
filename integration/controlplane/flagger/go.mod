module github.com/wheelwright-dev/wheelwright/integration/controlplane/flagger

go 1.26.0

require github.com/fluxcd/flagger v1.36.1 // indirect
