#!/usr/bin/env bash
# Runs the CHECKS of cargo-deny, and builds it first if this version is not installed: without
# optimisation and debug information, since it has little to do and would take minutes to build.
. "$(dirname "$0")/lib.sh"

need cargo
deny=target/tools/bin/cargo-deny
[[ $("$deny" --version 2>/dev/null) == "cargo-deny $CARGO_DENY_VERSION" ]] ||
  CARGO_PROFILE_DEV_DEBUG=false cargo install --locked --quiet --debug --root target/tools \
    --target-dir target/tools "cargo-deny@$CARGO_DENY_VERSION"
# shellcheck disable=SC2086 # Names, separated by spaces.
exec "$deny" --locked check $CHECKS
