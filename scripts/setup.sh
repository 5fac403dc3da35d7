#!/usr/bin/env bash
# Installs the Rust target of the component if it is missing.
. "$(dirname "$0")/lib.sh"

need rustup
target=wasm32-wasip1
rustup target list --installed | grep -x "$target" >/dev/null || rustup target add "$target"
