# What one does with the component; what with a cluster is in kubernetes.mk and autoscale.mk. `make` alone lists it all.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where `make run` listens.
LISTEN ?= 127.0.0.1:3000
# The Spin to use; on a machine without it, `make run` serves with the embedded host.
SPIN ?= spin

TARGET := wasm32-wasip1
BUILD_HOST := cargo build --locked --package embedded-host
# The Spin that the command line names, where one may do without.
GIVEN_SPIN = $(if $(filter command environment,$(firstword $(origin SPIN))),$(SPIN))
SPIN_INSTALL := https://spinframework.dev/install
RUSTUP_INSTALL := https://rustup.rs
SHELLCHECK_INSTALL := apt-get install shellcheck, brew install shellcheck, or https://www.shellcheck.net

# $(call need,TOOL,HOW TO GET IT): ends with one line where a tool is missing.
need = command -v $(1) >/dev/null || { echo "make: $(1) is not installed: $(2)" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup:
	@$(call need,rustup,$(RUSTUP_INSTALL))
	@rustup target list --installed | grep -x $(TARGET) >/dev/null || rustup target add $(TARGET)

.PHONY: build
build: setup ## Build the component
	@cargo build --locked --target $(TARGET) --release

.PHONY: run
run: build ## Serve it on http://127.0.0.1:3000 (LISTEN=…)
	@if command -v $(SPIN) >/dev/null; then \
		exec $(SPIN) up --listen $(LISTEN) --runtime-config-file runtime-config.toml; \
	else \
		echo "Spin is not installed ($(SPIN_INSTALL)): serving with the embedded host, without runtime-config.toml"; \
		exec cargo run --locked --package embedded-host -- --listen $(LISTEN); \
	fi

# The embedded host is always built by itself: with the rest of the workspace its crates would have other features, and
# Wasmtime would be compiled anew.
.PHONY: test
test: build ## Run all tests; the built component runs in the embedded host
	@cargo test --locked --package embedded-host
	@env -u SPIN cargo test --locked --workspace --exclude embedded-host

.PHONY: need-spin
need-spin:
	@$(call need,$(SPIN),$(SPIN_INSTALL))

.PHONY: test-spin
test-spin: need-spin build ## Run the tests over HTTP against a real Spin (SPIN=path)
	@SPIN=$(SPIN) cargo test --locked --test http --test raw --test openapi --test cpu_time

.PHONY: bench
bench: setup ## Measure what the documents claim, on Linux (ROWS=accuracy,pacing SPIN=path WASM=path), in a quarter of an hour
	@cargo run --locked --quiet --profile measured -p bench -- $(if $(ROWS),--rows $(ROWS))

.PHONY: lint
lint: setup deny ## Check the format, the code, the scripts and the dependencies, warnings denied
	@$(call need,shellcheck,$(SHELLCHECK_INSTALL))
	@shellcheck scripts/*.sh .ci/run
	@cargo fmt --all --check
	@cargo clippy --locked --package embedded-host --all-targets -- -D warnings
	@cargo clippy --locked --workspace --exclude embedded-host --all-targets -- -D warnings
	@cargo clippy --locked --target $(TARGET) -p cpu-load-gen -p hello -p control -- -D warnings

# $(call seconds,5m): such a duration in seconds, as shell arithmetic.
seconds = $$(($(subst h,*3600+,$(subst m,*60+,$(subst s,+,$(1))))0))

# Built by the target that needs it: 2 minutes on two cores, once.
CARGO_DENY_VERSION := 0.20.2
# What to check; `advisories` needs the database on GitHub, so that only CI asks for it.
CHECKS := bans licenses sources

.PHONY: deny
deny: ## Check the dependencies: bans, licences, sources (CHECKS=advisories: known vulnerabilities, from GitHub)
	@[ "$$(target/tools/bin/cargo-deny --version 2>/dev/null)" = 'cargo-deny $(CARGO_DENY_VERSION)' ] || \
		cargo install --locked --quiet --root target/tools --target-dir target/tools cargo-deny@$(CARGO_DENY_VERSION)
	@target/tools/bin/cargo-deny --locked check $(CHECKS)

.PHONY: fuzz
fuzz: ## Fuzz the parser of loads (FOR=5m); needs a nightly toolchain and cargo-fuzz
	@rustup toolchain list | grep '^nightly' >/dev/null || { echo 'make: there is no nightly toolchain: rustup toolchain install nightly' >&2; exit 1; }
	@[[ '$(or $(FOR),5m)' =~ ^([0-9]+h)?([0-9]+m)?([0-9]+s)?$$ ]] || { echo "make: FOR is '$(FOR)'; it must be a duration in h, m and s, such as 5m" >&2; exit 1; }
	@$(call need,cargo-fuzz,cargo install --locked cargo-fuzz@0.13.2)
	@mkdir -p target/fuzz/corpus
	@awk -F '\t' '{ seed = "target/fuzz/corpus/seed-" NR; printf "%s", $$1 > seed; close(seed) }' tests/loads.tsv
	@cargo +nightly fuzz run --target-dir target/fuzz --sanitizer none load target/fuzz/corpus -- \
		-max_total_time=$(call seconds,$(or $(FOR),5m)) -artifact_prefix=target/fuzz/

.PHONY: fuzz-http
fuzz-http: build ## Fuzz the component over HTTP as openapi.yaml describes it (SPIN=path: under a real Spin)
	@$(call need,python3,https://www.python.org/downloads/)
	@$(BUILD_HOST)
	@scripts/fuzz-http.sh $(GIVEN_SPIN)

.PHONY: soak
soak: build ## Work it hard for FOR=10m, then break what it stands on (SPIN=path: under a real Spin)
	@$(BUILD_HOST)
	@cargo build --locked --package soak
	@target/debug/soak --for $(or $(FOR),10m) $(addprefix --spin ,$(GIVEN_SPIN))

.PHONY: reproducible
reproducible: setup ## Build the component twice, in different folders: the same, byte for byte
	@scripts/reproducible.sh

.PHONY: clean
clean: ## Remove all that was built
	@cargo clean

include kubernetes.mk
include autoscale.mk
