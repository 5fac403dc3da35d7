#!/usr/bin/env bash
# Draws docs/autoscale.svg again from docs/autoscale.jsonl.gz, the observations of a run.
. "$(dirname "$0")/lib.sh"

need cargo
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
gunzip -c docs/autoscale.jsonl.gz >"$folder/observations.jsonl"
cargo run --locked --quiet --package recorder -- explain "$folder/observations.jsonl" --output "$folder"
cp "$folder/autoscale.svg" docs/
