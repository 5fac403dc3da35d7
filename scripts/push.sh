#!/usr/bin/env bash
# Pushes the built app and prints how to deploy exactly it: scripts/push.sh SPIN IMAGE [FLAG FOR spin registry push…]
set -euo pipefail

spin=$1 image=$2
pushed=$("$spin" registry push "${@:3}" "$image")
echo "$pushed"
digest=$(grep -o 'sha256:[0-9a-f]\{64\}' <<<"$pushed") || {
  echo 'make: the registry returned no digest' >&2
  exit 1
}
# A colon after the last slash begins a tag; one before it, a port.
name=$(sed 's/@.*//; s/:[^:/]*$//' <<<"$image")
echo "To deploy exactly this: make deploy IMAGE=$name@$digest"
