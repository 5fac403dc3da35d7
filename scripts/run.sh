#!/usr/bin/env bash
# Serves the component on LISTEN: with Spin, or with the embedded host if Spin is not installed.
. "$(dirname "$0")/lib.sh"

# Each connection needs a descriptor, and Spin ends if there are none left. A system may allow fewer
# than its own limit.
ulimit -Sn "$(ulimit -Hn)" 2>/dev/null || true
find_spin
scripts/build.sh
if [[ -n $spin ]]; then
  exec "$spin" up --listen "$LISTEN" --runtime-config-file runtime-config.toml
fi
echo "$no_spin: building the embedded host, which serves without runtime-config.toml"
exec cargo run --locked --package embedded-host -- --listen "$LISTEN"
