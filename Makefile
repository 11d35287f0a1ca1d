# `make run` and `make test` install what is missing (redis-server, PostgreSQL)
# through apt-get or brew, and nothing when all is there.

SHELL    := /bin/sh
ARGS     ?=
TIMEOUT  ?= 9m
FUZZTIME ?= 30s
SETUP    := ./cmd/headpond/up/setup.sh

.DEFAULT_GOAL := help
.PHONY: help run build test drill fuzz bench lint fmt clean setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: setup build ## start everything locally: Redis, PostgreSQL, API, flusher (ARGS="--listen :9000")
	@exec ./bin/headpond up $(ARGS)

build: ## build bin/headpond
	@CGO_ENABLED=0 go build -trimpath -o bin/headpond ./cmd/headpond

test: ## format check, vet, and all tests with the race detector
	@$(SETUP) redis postgres cc
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted (make fmt):" $$unformatted; exit 1; }
	go vet ./...
	go test -race -timeout $(TIMEOUT) ./...

# Failing inputs are kept in testdata/fuzz, where make test runs them again.
fuzz: ## run every fuzz target for a while (FUZZTIME=30s each)
	@list=$$(go test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ { names[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2, names[i]; n = 0 }' | \
	while read -r package target; do \
		echo "$$target"; \
		go test "$$package" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) || exit 1; \
	done

drill: setup build ## kill everything under load for two minutes, and count (ARGS="--seed 7")
	@exec ./bin/headpond drill $(ARGS)

bench: setup build ## measure on this machine (ARGS are passed on)
	@exec ./bin/headpond bench $(ARGS)

lint: ## golangci-lint if it is installed, else go vet
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "golangci-lint is not installed; go vet instead"; go vet ./...; fi

fmt: ## format the code
	@gofmt -w .

clean: ## remove what was built
	@rm -rf bin

setup: ## install redis-server and PostgreSQL if they are missing
	@$(SETUP) redis postgres
