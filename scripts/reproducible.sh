#!/usr/bin/env bash
# scripts/reproducible.sh: builds the component from two copies of the sources in folders of different length, from
# nothing each, and says whether both are the same.
set -euo pipefail
cd "$(dirname "$0")/.."

wasm=target/wasm32-wasip1/release/cpu_load_gen.wasm
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for copy in "$folder/a" "$folder/another/of a different length"; do
	mkdir -p "$copy"
	git ls-files -z | xargs -0 tar -cf - | tar -xf - -C "$copy"
	(cd "$copy" && cargo build --locked --quiet --target wasm32-wasip1 --release && sha256sum "$wasm")
done
cmp "$folder/a/$wasm" "$folder/another/of a different length/$wasm"
echo 'Both are the same, byte for byte.'
