#!/usr/bin/env bash
# scripts/need.sh TOOL…: fails if one is missing, with how to install it.
. "$(dirname "$0")/lib.sh"
need "$@"
