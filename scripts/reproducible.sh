#!/usr/bin/env bash
# Builds the component from scratch from two copies of the sources, in folders of different length, and checks that both
# are identical.
. "$(dirname "$0")/lib.sh"

wasm=target/wasm32-wasip1/release/cpu_load_gen.wasm
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for copy in "$folder/a" "$folder/another/of a different length"; do
  mkdir -p "$copy"
  git ls-files -z | xargs -0 tar -cf - | tar -xf - -C "$copy"
  make -C "$copy" --no-print-directory build
  sha256sum "$copy/$wasm" 2>/dev/null || shasum -a 256 "$copy/$wasm" # macOS has the second.
done
cmp "$folder/a/$wasm" "$folder/another/of a different length/$wasm"
echo 'Both builds are identical.'
