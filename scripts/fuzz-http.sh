#!/usr/bin/env bash
# scripts/fuzz-http.sh [SPIN]: serves the component with small limits, by the embedded host or by SPIN, and has
# schemathesis send at least 20,000 requests that openapi.yaml allows or does not.
set -euo pipefail
cd "$(dirname "$0")/.."

SCHEMATHESIS=4.32.5
EXAMPLES=${EXAMPLES:-21000}
venv=target/schemathesis/$SCHEMATHESIS
if [ ! -x "$venv/bin/schemathesis" ]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet "schemathesis==$SCHEMATHESIS"
fi

export SPIN_VARIABLE_LOAD=iterations=100 SPIN_VARIABLE_MAX_ITERATIONS=10000
export SPIN_VARIABLE_MAX_CPU_TIME=1ms SPIN_VARIABLE_MAX_DURATION=20ms
: >"$venv/served"
if [ $# -gt 0 ]; then
	"$1" up --quiet --listen 127.0.0.1:0 >"$venv/served" &
else
	target/debug/embedded-host --listen 127.0.0.1:0 >"$venv/served" &
fi
server=$!
trap 'kill "$server"; wait "$server" || true' EXIT
until url=$(grep --only-matching --max-count 1 'http://[0-9.:]*' "$venv/served"); do
	kill -0 "$server" || exit 1
	sleep 0.2
done

# Left out: positive_data_acceptance, since a load that the contract describes may be above a limit of the deployment;
# tests/openapi.rs holds the parser to it.
cd "$venv" # where schemathesis keeps a cache
bin/schemathesis run ../../../openapi.yaml --url "$url" --workers 2 --max-examples "$EXAMPLES" --no-color \
	--exclude-checks positive_data_acceptance --suppress-health-check all --continue-on-failure | tee report
generated=$(sed -n 's/^ *\([0-9]*\) generated.*/\1/p' report)
[ "$generated" -ge 20000 ] || { echo "fuzz-http: only $generated requests; raise EXAMPLES" >&2; exit 1; }
