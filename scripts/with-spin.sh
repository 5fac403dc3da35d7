#!/usr/bin/env bash
# scripts/with-spin.sh COMMAND…: runs the command with the path of a working Spin in SPIN.
. "$(dirname "$0")/lib.sh"

need_spin
SPIN=$spin exec "$@"
