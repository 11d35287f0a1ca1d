# `make run` and `make test` install what is missing (redis-server, PostgreSQL)
# through apt-get or brew, and nothing when all is there.

SHELL    := /bin/sh
ARGS     ?=
TIMEOUT  ?= 15m
FUZZTIME ?= 30s
FAULTS   ?= all
SOAK     ?= 30m
SETUP    := ./cmd/headpond/up/setup.sh
PAGE     := api/dashboard/dist/index.html

.DEFAULT_GOAL := help
.PHONY: help run build test chaos soak faults fuzz screenshots drill bench lint fmt clean setup

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-11s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A program that is built without npm says on /dashboard that it has none.
$(PAGE): $(wildcard api/dashboard/src/*) api/dashboard/package-lock.json api/dashboard/build.mjs
	@if command -v npm >/dev/null; then cd api/dashboard && npm ci --no-audit --no-fund --loglevel=error && npm run --silent build; \
	else echo "npm is not installed: built without the dashboard" >&2; fi

run: setup build ## start everything locally: Redis, PostgreSQL, API, flusher (ARGS="--listen :9000")
	@exec ./bin/headpond up $(ARGS)

build: $(PAGE) ## build bin/headpond
	@CGO_ENABLED=0 go build -trimpath -o bin/headpond ./cmd/headpond

test: ## format check, vet, and all tests with the race detector
	@$(SETUP) redis postgres npm cc chromium
	@$(MAKE) --no-print-directory $(PAGE)
	@unformatted=$$(gofmt -l .); [ -z "$$unformatted" ] || { echo "not formatted (make fmt):" $$unformatted; exit 1; }
	go vet ./...
	go test -race -parallel 3 -timeout $(TIMEOUT) ./...

# HEADPOND_SEED=… repeats the random choices of a run, HEADPOND_RUNS=… says how
# often each fault happens. What mounts file systems needs root, or is skipped.
chaos: ## make faults happen under load, two at a time (FAULTS=F22,F47)
	@$(SETUP) redis postgres
	HEADPOND_CHAOS=$(FAULTS) go test ./cmd/headpond -run '^TestChaos$$' -count=1 -v -timeout 30m

soak: ## random faults on one stack (SOAK=30m)
	@$(SETUP) redis postgres
	HEADPOND_SOAK=$(SOAK) go test ./cmd/headpond -run '^TestSoak$$' -count=1 -v -timeout 0

# HEADPOND_GUARDS=none leaves the guards where they are: the page keeps their rows.
faults: ## write FAULTS.md: every fault, every guard taken out (FAULTS=F22,F52)
	@$(SETUP) redis postgres
	HEADPOND_CHAOS=$(FAULTS) HEADPOND_FAULTS=FAULTS.md HEADPOND_SOAK=$(or $(filter-out 30m,$(SOAK)),5m) go test ./cmd/headpond -run '^TestFaults$$' -count=1 -v -timeout 0

# Failing inputs are kept in testdata/fuzz, where make test runs them again.
fuzz: ## run every fuzz target for a while (FUZZTIME=30s each)
	@list=$$(go test -list '^Fuzz' ./...) || { echo "$$list"; exit 1; }; \
	echo "$$list" | awk '/^Fuzz/ { names[++n] = $$1 } /^ok/ { for (i = 1; i <= n; i++) print $$2, names[i]; n = 0 }' | \
	while read -r package target; do \
		echo "$$target"; \
		go test "$$package" -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) || exit 1; \
	done

screenshots: setup build ## take the pictures of the dashboard anew
	@$(SETUP) chromium
	HEADPOND_SCREENSHOTS=$(CURDIR)/api/dashboard/screenshots go test ./cmd/headpond -run '^TestScreenshots$$' -count=1 -v -timeout 10m

drill: setup build ## kill everything under load and prove that nothing was lost (ARGS are passed on)
	@exec ./bin/headpond drill $(ARGS)

bench: setup build ## measure on this machine (ARGS are passed on)
	@exec ./bin/headpond bench $(ARGS)

lint: ## golangci-lint if it is installed, else go vet
	@if command -v golangci-lint >/dev/null; then golangci-lint run; else echo "golangci-lint is not installed; go vet instead"; go vet ./...; fi

fmt: ## format the code
	@gofmt -w .

clean: ## remove what was built
	@rm -rf bin api/dashboard/node_modules api/dashboard/dist/*

setup: ## install redis-server, PostgreSQL and npm if they are missing
	@$(SETUP) redis postgres npm
