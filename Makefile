# Shoal. The two commands that matter: make demo, make test.
SHELL := /bin/sh
export CGO_ENABLED := 0
export RUN
HOSTS ?= 3
VERSION := 0.1.0
LDFLAGS := -s -w -X main.version=$(VERSION)

.PHONY: help build demo test lab lab-down lab-heal vm sim bench bench-vm setup
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' Makefile

setup:
	@bench/setup/packages run

build: ## shoald and netctl, static, into bin/
	@mkdir -p bin
	go build -ldflags '$(LDFLAGS)' -o bin/ ./cmd/shoald ./cmd/netctl
	go build -ldflags '-s -w -X main.version=v1' -o bin/whoami ./cmd/whoami
	go build -ldflags '-s -w -X main.version=v2' -o bin/whoami-v2 ./cmd/whoami
	go build -o bin/ ./bench/lab/labctl ./bench/demo ./bench/mesh
	go run ./bench/image -bin bin/whoami -tag shoal/whoami:latest -o bin/whoami.tar
	go run ./bench/image -bin bin/whoami-v2 -tag shoal/whoami:v2 -o bin/whoami-v2.tar

demo: setup build ## three hosts on this machine run one service, and survive
	bin/demo

lab: setup build ## bring up HOSTS=3 hosts and leave them
	bin/labctl up --hosts $(HOSTS)

lab-down: ## take the lab away
	bin/labctl down

lab-heal: ## start again whatever of the lab was killed or cut
	bin/labctl heal

test: setup build ## every lane: tidy, unit, lab, vm, conformance, short sim
	@bench/setup/packages vm
	@bench/setup/packages conformance
	@bench/setup/packages bench
	go run ./bench/lanes

vm: setup ## run RUN="command" under a kernel that has IPVS
	@bench/setup/packages vm
	bench/vm/run -- sh -c "$$RUN"

sim: ## the long simulation
	go test -count=1 -timeout 30m ./bench/sim

bench: setup build ## compare direct, raw balancer, HAProxy, Swarm's path and Shoal: .cache/bench
	@bench/setup/packages bench
	bin/mesh $(BENCH)

bench-vm: setup build ## the same, with fewer rounds, under a kernel that has IPVS
	@bench/setup/packages vm
	@bench/setup/packages bench
	@mkdir -p .cache/bench
	bench/vm/run --count --timeout 1500 --rw .cache/bench -- bin/mesh -title vm -rounds 6 -slice 50ms -services 1000 -patience 5m $(BENCH)
