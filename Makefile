# everynode: `sudo make up` runs it on this machine, `sudo make test` proves it.

DATA_DIR ?= /var/lib/everynode
GO       ?= go

# One set of build flags everywhere, so that build, test and lint share one cache.
export GOFLAGS := -trimpath -buildvcs=false
export CGO_ENABLED := 0

KUBERNETES := v1.36.3
VERSION    := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
COMMIT     := $(shell git rev-parse HEAD 2>/dev/null)
STAMP      := -X k8s.io/component-base/version
LDFLAGS    := -X github.com/everynode/everynode/internal/cli.version=$(VERSION) \
	$(STAMP).gitVersion=$(KUBERNETES)+everynode $(STAMP).gitMajor=1 $(STAMP).gitMinor=36 $(STAMP).gitCommit=$(COMMIT) $(STAMP).gitTreeState=clean
STRIP      := -s -w

# Runs go test and says at the very end, once more, which tests failed and with which words.
GOTESTSUM  := $(GO) tool -modfile=$(CURDIR)/tools/dev/go.mod gotestsum --hide-summary=skipped

.PHONY: help build up down test lint unit e2e conformance soak bench bench-upstream packages test-packages toolchain clean
.DEFAULT_GOAL := help

help: ## show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

up: packages build ## run everynode here and put node-exporter on every node (as root)
	@DATA_DIR=$(DATA_DIR) scripts/up.sh

down: ## stop it and leave nothing running; the data stays (as root)
	@bin/everynode down --data-dir $(DATA_DIR)

build: toolchain ## build bin/everynode
	@$(GO) build -ldflags "$(STRIP) $(LDFLAGS)" -o bin/everynode ./cmd/everynode

test: test-packages build bin/kubectl lint unit e2e ## lint, unit tests and end-to-end tests (as root)

lint: toolchain ## the linters of .golangci.yml
	@echo "lint: golangci-lint (its first build takes some minutes)"
	@$(GO) tool -modfile=tools/dev/go.mod golangci-lint run ./...
	@cd test/upstream && $(GO) tool -modfile=../../tools/dev/go.mod golangci-lint run ./...

unit: toolchain ## unit tests; objects from caches are checked for mutation
	KUBE_CACHE_MUTATION_DETECTOR=true $(GOTESTSUM) --format standard-quiet -- -ldflags "$(STAMP).gitVersion=$(KUBERNETES)+everynode $(STAMP).gitMajor=1 $(STAMP).gitMinor=36" -timeout 10m ./...
	cd test/upstream && $(GO) test -timeout 10m ./...

e2e: build bin/kubectl ## the real binary, containerd and kubectl, several nodes (as root)
	$(GOTESTSUM) --format standard-verbose -- -tags e2e -count=1 -timeout 45m ./test/e2e/...

SUITE := bin/conformance
conformance: packages build bin/kubectl $(SUITE)/e2e.test $(SUITE)/ginkgo $(SUITE)/agnhost $(SUITE)/nonewprivs ## upstream's specs on two nodes, DaemonSets' if no FOCUS=regexp; SKIP=, PROCS=n (as root)
	$(GO) test -tags conformance -count=1 -timeout 4h -v ./test/conformance

$(SUITE)/e2e.test: test/upstream/suite/go.mod test/upstream/suite/suite_test.go | toolchain
	@echo "building upstream's suite; the first time takes some minutes"
	@cd test/upstream/suite && $(GO) test -c -ldflags "$(STRIP) $(subst +everynode,,$(LDFLAGS))" -o ../../../$@ .

$(SUITE)/ginkgo $(SUITE)/agnhost $(SUITE)/nonewprivs &: test/upstream/suite/go.mod | toolchain
	@cd test/upstream/suite && $(GO) build -ldflags "$(STRIP)" -o ../../../$(SUITE)/ tool

soak: toolchain ## the DaemonSet machine: 50,000 histories against its oracle, 5,000 simulated worlds
	$(GO) test -count=1 -timeout 60m -run 'TestAgreesWithOracle|TestConverges|TestNeverTwoOnANode|TestBudgetIsKept' ./internal/decide/daemonset -rapid.checks=50000
	$(GO) test -count=1 -timeout 60m -run 'TestSmallWorlds' ./internal/sim -seeds=5000

bench: packages build bin/kubectl bin/kubelet ## speed and size: machines, server, agent beside the kubelet (as root)
	$(GO) test -run '^$$' -bench . -benchtime 3x ./internal/decide/... ./internal/controllers/...
	$(GO) test -tags e2e -count=1 -run '^$$' -bench . -benchtime 10x -timeout 30m ./test/e2e/...

bench-upstream: toolchain ## our DaemonSet controller beside upstream's: the table of docs/performance.md
	@cd test/upstream && $(GO) run ./bench

# The stock kubectl of the pinned version: users bring their own, and it must work.
bin/kubectl: go.mod | toolchain
	$(GO) build -ldflags "$(STRIP) $(subst +everynode,,$(LDFLAGS))" -o $@ k8s.io/kubernetes/cmd/kubectl

# The stock kubelet, for benchmarks only.
bin/kubelet: test/upstream/suite/go.mod | toolchain
	cd test/upstream/suite && $(GO) build -ldflags "$(STRIP) $(subst +everynode,,$(LDFLAGS))" -o ../../../$@ k8s.io/kubernetes/cmd/kubelet

packages: ## install what is missing of containerd, runc, CNI plugins, iptables
	@scripts/packages.sh

test-packages: ## install what the tests need besides
	@scripts/packages.sh test

toolchain:
	@command -v $(GO) >/dev/null || { echo "make: Go is missing: install Go 1.26 or later (https://go.dev/dl) and put it on PATH" >&2; exit 1; }

clean:
	rm -rf bin
