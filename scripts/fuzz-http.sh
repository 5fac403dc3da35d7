#!/usr/bin/env bash
# Serves the component with small limits, by the embedded host or the Spin that SPIN names, and
# sends EXAMPLES valid and invalid requests to it with schemathesis. Needs target/debug/with-server.
. "$(dirname "$0")/lib.sh"

need python3
[[ $EXAMPLES =~ ^[0-9]+$ ]] || fail "\`EXAMPLES\` is \"$EXAMPLES\"; it must be a number of requests"
root=$PWD venv=target/schemathesis/$SCHEMATHESIS_VERSION
if [[ ! -x $venv/bin/schemathesis ]]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install --quiet "schemathesis==$SCHEMATHESIS_VERSION"
fi

export SPIN_VARIABLE_LOAD=iterations=100 SPIN_VARIABLE_MAX_ITERATIONS=10000
export SPIN_VARIABLE_MAX_CPU_TIME=1ms SPIN_VARIABLE_MAX_DURATION=20ms

# SPIN may be a path relative to this folder.
[[ -z ${SPIN:-} ]] || { find_spin; export SPIN=$spin; }
cd "$venv" # where schemathesis keeps a cache
# Left out: positive_data_acceptance, since a load that the contract describes may be above a limit
# of the deployment; tests/openapi.rs tests the parser against it.
# shellcheck disable=SC2016 # with-server sets URL.
"$root/target/debug/with-server" sh -c 'exec bin/schemathesis run "$0" --url "$URL" --workers 2 \
  --max-examples "$EXAMPLES" --no-color --exclude-checks positive_data_acceptance \
  --suppress-health-check all --continue-on-failure' "$root/openapi.yaml" | tee report
generated=$(sed -n 's/^ *\([0-9]*\) generated.*/\1/p' report)
[[ -n $generated ]] || fail "the report of schemathesis has no number of generated requests"
# It may generate a few less than it is asked for.
((generated >= EXAMPLES * 9 / 10)) ||
  fail "schemathesis generated $generated requests instead of $EXAMPLES"
