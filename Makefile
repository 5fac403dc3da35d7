# Targets that call cargo or a script; `make` alone lists them.

SHELL := bash
.DEFAULT_GOAL := help

# spin.toml names a file in target/, so the build must go there, whatever CARGO_TARGET_DIR this
# account has set.
override CARGO_TARGET_DIR := $(CURDIR)/target
export CARGO_TARGET_DIR

# Each setting may come from the command line of make or from the environment. It reaches the
# scripts through the environment, never as text of a command, so any character may be in it; only a
# `$` on the command line of make must be written `$$`.

# Where `make run` listens.
export LISTEN ?= 127.0.0.1:3000
# How long fuzz, soak and watch run. Empty: the default of each.
export FOR ?=
# The requests of `make fuzz-http`.
export EXAMPLES ?= 21000
# The checks of `make deny`; `advisories` needs the database on GitHub, so only CI runs it.
export CHECKS ?= bans licenses sources
# The cases of `make bench`; empty: all that need nothing but this repository.
export CASES ?=
# The values that `make crowds` draws; empty: measure them.
export FROM ?=

# The app: a tag or a digest (name@sha256:…), where it runs, and what scales it (keda or hpa).
export IMAGE ?= ttl.sh/cpu-load-gen:1h
export NAMESPACE ?= default
export AUTOSCALER ?= keda
# Flags for `spin registry push`.
export PUSH_FLAGS ?=
# A file such as runtime-config.toml that every replica reads; empty: none.
export RUNTIME_CONFIG ?=

# The cluster: what runs it (k3d or kind), its name, its port on this machine, the port of the
# registry beside kind, and further flags for `k3d cluster create`.
export CLUSTER_WITH ?= k3d
export CLUSTER ?= wasm-cluster-scale
export PORT ?= 8081
export REGISTRY_PORT ?= 5001
export K3D_FLAGS ?=

# The traffic.
export URL ?= http://localhost:$(PORT)
export CONNECTIONS ?= 40
export TIMEOUT ?= 5s
export DURATION ?= 3m

# The expected result: EXPECT=20 WITHIN=3m, or EXPECT=7 HOLD=2m.
export EXPECT ?=
export WITHIN ?=
export HOLD ?=
# How long `make autoscale` waits after the traffic for the minimum number of replicas; no: not at
# all.
export UNTIL_IDLE ?= 15m
# The replicas of `make hold`.
export REPLICAS ?=
# The port of a page that shows the recording while it runs: SERVE=8082.
export SERVE ?=
# The folder for the files of a recording, and the one that `make explain` reads and writes.
export OUTPUT ?= target/autoscale
export RECORDING ?= $(OUTPUT)

# The embedded host is always built by itself: with the rest of the workspace its crates would have
# other features, and Wasmtime would be compiled anew. Tests are always built from the whole rest, so
# that no test target compiles the crates of another anew.
BUILD_HOST := cargo build --locked --package embedded-host
TEST := cargo test --locked --workspace --exclude embedded-host
# Clippy in place of the compiler for what the tests need: so `make lint` and `make test` compile the
# dependencies once, where `cargo clippy` would check them apart, for three minutes in a new clone.
CLIPPY := RUSTC_WORKSPACE_WRAPPER="$(CURDIR)/scripts/clippy.sh"
BENCH := cargo run --locked --quiet --profile measured --package bench --

.PHONY: help
help:
	@awk -F ':.*## ' '/^## / { print "\n" substr($$0, 4) } /^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' Makefile

.PHONY: rust-target
rust-target:
	@scripts/lib.sh need_target

## Component
.PHONY: build
build: ## Build the component
	@scripts/build.sh

.PHONY: run
run: ## Build it and serve it on http://127.0.0.1:3000 (LISTEN=…), with Spin or the embedded host (SPIN=path)
	@scripts/run.sh

.PHONY: push
push: ## Build it, push it to IMAGE, and print its digest (PUSH_FLAGS=--insecure for a registry without TLS)
	@scripts/push.sh

.PHONY: clean
clean: ## Remove everything that was built
	@cargo clean

## Quality
.PHONY: test
test: build ## Run all tests; the built component runs in the embedded host
	@$(BUILD_HOST)
	@env -u SPIN $(TEST)

.PHONY: test-spin
test-spin: ## Run the tests over HTTP against a real Spin (SPIN=path)
	@scripts/lib.sh with_spin $(SHELL) -c \
	  'scripts/build.sh && exec $(TEST) --test http --test raw --test openapi --test cpu_time'

.PHONY: test-clients
test-clients: build ## Run the tests that need nginx, HAProxy and Chromium
	@$(BUILD_HOST)
	@env -u SPIN $(TEST) --test proxies --test recorder -- --ignored

.PHONY: lint
lint: rust-target ## Check format, code, scripts and dependencies, warnings denied
	@scripts/lib.sh need shellcheck
	@scripts/deny.sh
	@shellcheck scripts/*.sh .ci/run
	@cargo fmt --all --check
	@$(CLIPPY) $(BUILD_HOST)
	@$(CLIPPY) $(TEST) --no-run
	@cargo clippy --locked --target wasm32-wasip1 -p cpu-load-gen -p hello -p control -- -D warnings

.PHONY: deny
deny: ## Check the dependencies: bans, licences, sources (CHECKS=advisories: known vulnerabilities, from GitHub)
	@scripts/deny.sh

.PHONY: bench
bench: rust-target ## Measure the figures of the documents, on Linux, in 20 minutes (CASES=few,tutorial SPIN=path WASM=path CSV=docs/accuracy.csv)
	@$(BENCH) measure $${CASES:+--cases "$$CASES"}

.PHONY: crowds
crowds: rust-target ## Run `make bench CASES=crowds CSV=docs/accuracy.csv`, and draw docs/crowds.svg (FROM=docs/accuracy.csv: only draw)
	@[ "$$FROM" ] || $(BENCH) measure --cases crowds --csv docs/accuracy.csv
	@$(BENCH) draw "$${FROM:-docs/accuracy.csv}"

.PHONY: soak
soak: build ## Send mixed requests for FOR=10m, then cause faults (SPIN=path: a real Spin)
	@$(BENCH) soak --for "$${FOR:-10m}"

.PHONY: fuzz
fuzz: ## Fuzz the parser of loads (FOR=5m); needs a nightly toolchain and cargo-fuzz
	@scripts/fuzz.sh

.PHONY: fuzz-http
fuzz-http: build ## Fuzz the component over HTTP as openapi.yaml describes it (SPIN=path EXAMPLES=700: under a real Spin)
	@$(BUILD_HOST)
	@cargo build --locked --package testkit
	@scripts/fuzz-http.sh

.PHONY: reproducible
reproducible: ## Build the component twice, for different accounts, and check that both are identical
	@scripts/reproducible.sh

## Cluster
.PHONY: cluster
cluster: ## Create the cluster with SpinKube and KEDA, or install missing parts (CLUSTER_WITH=k3d or kind)
	@scripts/cluster.sh create

.PHONY: deploy
deploy: ## Deploy IMAGE with its autoscaler and Ingress in the current context, and wait until it is ready
	@scripts/deploy.sh

.PHONY: load
load: ## Load the app with CONNECTIONS at once for DURATION; fails if a response is not 2xx
	@scripts/load.sh

.PHONY: undeploy
undeploy: ## Delete the app, its autoscaler, its Ingress and its runtime config from the current context
	@scripts/undeploy.sh

.PHONY: cluster-delete
cluster-delete: ## Delete the cluster that `make cluster` created (CLUSTER_WITH=k3d or kind)
	@scripts/cluster.sh delete

## Recorder
.PHONY: watch
watch: ## Follow the scaling until Ctrl-C or FOR=5m, and record it
	@scripts/record.sh watch

.PHONY: autoscale
autoscale: ## Load the app, record how it scales out and back, and check it (EXPECT=20 WITHIN=3m SERVE=8082)
	@scripts/record.sh run

.PHONY: hold
hold: ## Load the app so that exactly REPLICAS=7 are wanted, and check that they stay for HOLD=2m
	@scripts/record.sh hold

.PHONY: explain
explain: ## Explain a recording again, without a cluster (RECORDING=folder)
	@scripts/record.sh explain

.PHONY: picture
picture: ## Draw the picture of the README again from its recording
	@scripts/picture.sh
