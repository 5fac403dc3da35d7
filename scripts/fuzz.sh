#!/usr/bin/env bash
# Fuzzes the parser of loads for FOR, from the loads of the tests.
. "$(dirname "$0")/lib.sh"

for=${FOR:-5m}
[[ $for =~ ^([0-9]+h)?([0-9]+m)?([0-9]+s)?$ ]] ||
  fail "\`FOR\` is \"$for\"; it must be a duration in h, m and s, such as 5m"
hours=${BASH_REMATCH[1]%h} minutes=${BASH_REMATCH[2]%m} seconds=${BASH_REMATCH[3]%s}

need rustup
rustup toolchain list | grep '^nightly' >/dev/null ||
  fail 'nightly Rust is not installed: rustup toolchain install nightly'
need cargo-fuzz
corpus=target/fuzz/corpus
mkdir -p "$corpus"
awk -F '\t' -v corpus="$corpus" '{ seed = corpus "/seed-" NR; printf "%s", $1 > seed; close(seed) }' tests/loads.tsv
exec cargo +nightly fuzz run --target-dir target/fuzz --sanitizer none load "$corpus" -- \
  "-max_total_time=$((10#0$hours * 3600 + 10#0$minutes * 60 + 10#0$seconds))" -artifact_prefix=target/fuzz/
