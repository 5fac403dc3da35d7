#!/usr/bin/env bash
# scripts/build.sh [ARGUMENT]…: builds the component, and passes the arguments to cargo. The result
# is the same in every folder and for every account, whatever flags and profile it has set.
. "$(dirname "$0")/lib.sh"

need_target
target=wasm32-wasip1
# The variables and the configuration of the account take precedence over Cargo.toml, but not over
# --config.
mkdir -p target
sed -n '/^\[profile\.release/,/^$/p' Cargo.toml >target/profile.toml

# Panics name source files: those of dependencies are below the account's cargo home, in a folder
# for each mirror of crates.io; those of the standard library are below the toolchain if rustup has
# installed them for an editor.
cargo fetch --locked --target "$target"
commit=$(rustc --version --verbose | sed -n 's/^commit-hash: //p')
flags=("--remap-path-prefix=$(rustc --print sysroot)/lib/rustlib/src/rust=/rustc/$commit")
home=${CARGO_HOME:-~/.cargo}
for sources in "$home"/registry/src/*; do
  flags+=("--remap-path-prefix=$sources=/crates")
done
# It takes precedence over RUSTFLAGS and all other flags of the account.
CARGO_ENCODED_RUSTFLAGS=$(IFS=$'\x1f' && echo "${flags[*]}")
export CARGO_ENCODED_RUSTFLAGS
export CARGO_INCREMENTAL=0
# Where spin.toml expects it, whatever CARGO_TARGET_DIR says.
exec cargo build --locked --config target/profile.toml --target "$target" --target-dir target --release "$@"
