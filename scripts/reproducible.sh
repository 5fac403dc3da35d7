#!/usr/bin/env bash
# Builds the component from scratch from two copies of the sources, in folders of different length
# and for accounts with different homes, flags and profiles, and checks that both are identical.
. "$(dirname "$0")/lib.sh"

wasm=target/wasm32-wasip1/release/cpu_load_gen.wasm
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# build COPY [NAME=VALUE]…: builds a copy with these variables.
build() {
  mkdir -p "$1"
  tar --exclude ./.git --exclude ./target --exclude ./fuzz/target -cf - . | tar -xf - -C "$1"
  env "${@:2}" make -C "$1" --no-print-directory build
  sha256sum "$1/$wasm" 2>/dev/null || shasum -a 256 "$1/$wasm" # macOS has the second.
}

one=$folder/a other="$folder/another/of a different length"
build "$one"
# Another home with the same registry, which need not be downloaded again.
home=${CARGO_HOME:-~/.cargo}
ln -s "$home" "$folder/home"
build "$other" CARGO_HOME="$folder/home" RUSTFLAGS='-C target-feature=+simd128' CARGO_INCREMENTAL=1 \
  CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16
cmp "$one/$wasm" "$other/$wasm"
echo 'Both builds are identical.'
