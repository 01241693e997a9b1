# Wheelwright. `make help` lists the targets; CI runs `.ci/run`, which runs the same ones.
SHELL       := bash
.SHELLFLAGS := -euo pipefail -c
MODULE      := github.com/wheelwright-dev/wheelwright
VERSION     ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
COMMIT      ?= $(shell git rev-parse --short=10 HEAD 2>/dev/null || echo unknown)
LDFLAGS     := -s -w -X $(MODULE)/pkg/buildinfo.version=$(VERSION) -X $(MODULE)/pkg/buildinfo.commit=$(COMMIT)
SOURCES      = find . -name '*.go' -not -name '*.pb.go' -not -path './.*'
# Packages whose tests need no cluster: what `make check` runs.
UNIT         = go list -f '{{.ImportPath}}{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}' ./... \
	| awk -v m='$(MODULE)/integration' '$$1 !~ "^"m"$$" && $$0 !~ m"/(harness|world|realnode)" {print $$1}'
# Packages whose tests run on a real node; without WHEELWRIGHT_E2E they skip.
E2E          = ./integration/realnode/...
# Tests that run Flagger's and Argo Rollouts' own controllers.
LEADERS      = TestFlagger|TestArgoRollouts|TestHandedTo(Flagger|ArgoRollouts)
# Which benchmarks run, and where their reports go.
BENCH       ?= .
BENCH_OUT   ?= dist
FLEET        = ./integration/fleet
# What the protobuf contracts must stay compatible with: the main branch's last commit.
BASE        ?= $(shell git rev-parse -q --verify origin/main || git rev-parse -q --verify main || git rev-parse -q --verify HEAD)

.DEFAULT_GOAL := help
.PHONY: help build controlplane test race e2e lint generate generate-check architecture unit check house demo bench bench-fleet figures image release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## static binaries bin/hub, bin/spoke and bin/plugins/*
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/hub ./hub/cmd/hub
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/spoke ./spoke/cmd/spoke
	CGO_ENABLED=0 go build -trimpath -ldflags '$(LDFLAGS)' -o bin/plugins/ ./plugins/canary ./plugins/conformance ./plugins/notify

controlplane: ## build etcd, Kubernetes and kwok for the tests into the cache, once (about 10 minutes)
	go run ./integration/harness/cmd/cluster -build

test: controlplane ## every test, on real clusters
	go test -timeout 40m ./...

race: controlplane ## every test with the race detector
	WHEELWRIGHT_RACE=1 go test -race -timeout 60m ./...

e2e: ## real pods and traffic on a real node: as root on Linux [RUN=regexp of tests]
	go run ./integration/harness/cmd/cluster -real -build
	WHEELWRIGHT_E2E=1 go test -count=1 -p 1 -timeout 25m -v -run '$(RUN)' $(E2E)
	WHEELWRIGHT_E2E=1 go test -count=1 -p 2 -timeout 15m -v -run '$(or $(RUN),^($(LEADERS))$$)' ./plugins/canary ./spoke/internal/agent

lint: ## gofmt, vet, staticcheck, buf lint, buf breaking
	@unformatted=$$($(SOURCES) -print0 | xargs -0 gofmt -l); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w on:"; echo "$$unformatted"; exit 1; fi
	go vet ./...
	go tool staticcheck ./...
	go tool buf lint
	@if [ -n "$(BASE)" ] && git cat-file -e $(BASE):proto 2>/dev/null; then \
		old=$$(mktemp -d); trap 'rm -rf "$$old"' EXIT; \
		git archive $(BASE) proto buf.yaml | tar -x -C "$$old"; \
		echo "go tool buf breaking --against $$(git rev-parse --short $(BASE))"; \
		go tool buf breaking --against "$$old"; \
	fi

generate: ## Go code from proto
	go tool buf generate

generate-check: ## is the generated code what proto says?
	@new=$$(mktemp -d); trap 'rm -rf "$$new"' EXIT; \
	echo "go tool buf generate, compared"; \
	go tool buf generate -o "$$new"; \
	diff -r -x '*.proto' "$$new/proto" proto || { echo "generated code is stale: run make generate"; exit 1; }

architecture: ## floors, doors and package docs
	go test -run '^TestArchitecture' ./integration

unit: ## the tests that need no cluster
	go test -short $$($(UNIT))

check: lint generate-check architecture unit ## everything that is quick: what to run before a commit

house: ## what is long, wide or mutable
	@go run ./integration/house

demo: ## the whole product once: one vendor, one hub, three spokes on three real clusters
	go run ./integration/demo

bench: ## benchmarks, and a report in dist/bench/ [BENCH=regexp of benchmarks, BENCH_OUT=folder]
	go run ./integration/figures -benchmarks '$(BENCH)' -out $(BENCH_OUT)/bench \
		$$(grep -rl --include='*_test.go' '^func Benchmark' . | xargs -n 1 dirname | sort -u | grep -vx $(FLEET))

bench-fleet: ## benchmarks of one hub under 10,000 simulated spokes, about half an hour, and a report with plots [as bench]
	go run ./integration/figures -benchmarks '$(BENCH)' -out $(BENCH_OUT)/fleet $(FLEET)

figures: controlplane ## measure and print every claimed figure [ONLY=regexp of names]
	go run ./integration/figures -only '$(ONLY)'

image: build ## container images dist/hub.tar and dist/spoke.tar, without a daemon, and dist/plugins.yaml
	go run ./deploy/image -tag '$(VERSION)'

release: ## dist/: archives, bills of materials and SHA256SUMS of this commit, for linux on amd64 and arm64, the same anywhere
	go run ./deploy/release -version '$(VERSION)' -commit '$(COMMIT)'

clean: ## remove what was built here (the cache of control plane binaries stays)
	rm -rf bin dist
