#!/usr/bin/env bash
# scripts/need.sh TOOL…: fails with how to install the first one that is missing.
. "$(dirname "$0")/lib.sh"
need "$@"
