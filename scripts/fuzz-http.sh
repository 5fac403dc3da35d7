#!/usr/bin/env bash
# Serves the component with small limits, by the embedded host or the Spin that SPIN names, and sends at least 20,000
# valid and invalid requests to it with schemathesis. Needs target/debug/with-server.
set -euo pipefail
cd "$(dirname "$0")/.."

SCHEMATHESIS=4.32.5
EXAMPLES=${EXAMPLES:-21000}
root=$PWD venv=target/schemathesis/$SCHEMATHESIS
if [ ! -x "$venv/bin/schemathesis" ]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet "schemathesis==$SCHEMATHESIS"
fi

export EXAMPLES SPIN_VARIABLE_LOAD=iterations=100 SPIN_VARIABLE_MAX_ITERATIONS=10000
export SPIN_VARIABLE_MAX_CPU_TIME=1ms SPIN_VARIABLE_MAX_DURATION=20ms

# Left out: positive_data_acceptance, since a load that the contract describes may be above a limit of the deployment;
# tests/openapi.rs tests the parser against it.
cd "$venv" # where schemathesis keeps a cache
# shellcheck disable=SC2016 # with-server sets URL.
"$root/target/debug/with-server" sh -c 'exec bin/schemathesis run "$0" --url "$URL" --workers 2 \
	--max-examples "$EXAMPLES" --no-color --exclude-checks positive_data_acceptance --suppress-health-check all \
	--continue-on-failure' "$root/openapi.yaml" | tee report
generated=$(sed -n 's/^ *\([0-9]*\) generated.*/\1/p' report)
[ "$generated" -ge 20000 ] || { echo "fuzz-http: only $generated requests; raise EXAMPLES" >&2; exit 1; }
