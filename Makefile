# cpu-load-gen: everything that one does with it. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where `make run` listens.
LISTEN ?= 127.0.0.1:3000
# The Spin to use; on a machine without it, `make run` serves with the embedded host.
SPIN ?= spin

TARGET := wasm32-wasip1
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
	@cargo build --target $(TARGET) --release

.PHONY: run
run: build ## Serve it on http://127.0.0.1:3000 (LISTEN=…)
	@if command -v $(SPIN) >/dev/null; then \
		exec $(SPIN) up --listen $(LISTEN) --runtime-config-file runtime-config.toml; \
	else \
		echo "Spin is not installed ($(SPIN_INSTALL)): serving with the embedded host, without runtime-config.toml"; \
		exec cargo run --package embedded-host -- --listen $(LISTEN); \
	fi

# The embedded host is always built by itself: with the rest of the workspace its crates would have other features, and
# Wasmtime would be compiled anew.
.PHONY: test
test: build ## Run all tests; the built component runs in the embedded host
	@cargo test --package embedded-host
	@env -u SPIN cargo test --workspace --exclude embedded-host

.PHONY: need-spin
need-spin:
	@$(call need,$(SPIN),$(SPIN_INSTALL))

.PHONY: test-spin
test-spin: need-spin build ## Run the tests over HTTP against a real Spin (SPIN=path)
	@SPIN=$(SPIN) cargo test --test http --test abandon

.PHONY: bench
bench: setup ## Measure what the documents claim, on Linux (ROWS=accuracy,pacing SPIN=path WASM=path), in a quarter of an hour
	@cargo run --quiet --profile measured -p bench -- $(if $(ROWS),--rows $(ROWS))

.PHONY: lint
lint: setup ## Check the format, the code and the scripts, warnings denied
	@$(call need,shellcheck,$(SHELLCHECK_INSTALL))
	@shellcheck scripts/*.sh .ci/run
	@cargo fmt --all --check
	@cargo clippy --package embedded-host --all-targets -- -D warnings
	@cargo clippy --workspace --exclude embedded-host --all-targets -- -D warnings
	@cargo clippy --target $(TARGET) -p cpu-load-gen -p hello -p control -- -D warnings

.PHONY: clean
clean: ## Remove all that was built
	@cargo clean

include kubernetes.mk
