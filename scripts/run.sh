#!/usr/bin/env bash
# Serves the component on LISTEN: with Spin, or with the embedded host if Spin is not installed.
. "$(dirname "$0")/lib.sh"

find_spin
if [[ -n $spin ]]; then
  exec "$spin" up --listen "$LISTEN" --runtime-config-file runtime-config.toml
fi
echo "$no_spin: serving with the embedded host, without runtime-config.toml"
exec cargo run --locked --package embedded-host -- --listen "$LISTEN"
