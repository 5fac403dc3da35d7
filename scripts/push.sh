#!/usr/bin/env bash
# Builds the app, pushes it to IMAGE with PUSH_FLAGS, and prints the command that deploys exactly
# this build.
. "$(dirname "$0")/lib.sh"

need_spin
scripts/build.sh
# shellcheck disable=SC2086 # Flags, separated by spaces.
pushed=$("$spin" registry push $PUSH_FLAGS "$IMAGE")
echo "$pushed"
digest=$(grep -o 'sha256:[0-9a-f]\{64\}' <<<"$pushed") || fail 'the registry returned no digest'
# A colon after the last slash begins a tag; one before it, a port.
name=$(sed 's/@.*//; s/:[^:/]*$//' <<<"$IMAGE")
echo "To deploy exactly this: make deploy IMAGE=$name@$digest"
