#!/usr/bin/env bash
# scripts/fuzz-http.sh [SPIN]: serves the component with small limits, by the embedded host or by SPIN, and has
# schemathesis send at least 20,000 requests that openapi.yaml allows or does not.
set -euo pipefail
cd "$(dirname "$0")/.."

SCHEMATHESIS=4.32.5
EXAMPLES=${EXAMPLES:-10500} # For each of two operations.
venv=target/schemathesis/$SCHEMATHESIS
if [ ! -x "$venv/bin/schemathesis" ]; then
	python3 -m venv "$venv"
	"$venv/bin/pip" install --quiet "schemathesis==$SCHEMATHESIS"
fi

url=http://127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
export SPIN_VARIABLE_LOAD=iterations=100 SPIN_VARIABLE_MAX_ITERATIONS=10000
export SPIN_VARIABLE_MAX_CPU_TIME=1ms SPIN_VARIABLE_MAX_DURATION=20ms
if [ $# -gt 0 ]; then
	"$1" up --quiet --listen "${url#http://}" &
else
	target/debug/embedded-host --listen "${url#http://}" &
fi
server=$!
trap 'kill "$server"; wait "$server" || true' EXIT
until curl --fail --silent --output /dev/null "$url/.well-known/spin/health"; do
	kill -0 "$server" || exit 1
	sleep 0.2
done

# Left out: positive_data_acceptance, since a load that the contract describes may be above a limit of the deployment;
# tests/openapi.rs holds the parser to it.
"$venv/bin/schemathesis" run openapi.yaml --url "$url" --workers 2 --max-examples "$EXAMPLES" --no-color \
	--exclude-checks positive_data_acceptance --suppress-health-check all --continue-on-failure | tee "$venv/report"
generated=$(sed -n 's/^ *\([0-9]*\) generated.*/\1/p' "$venv/report")
[ "$generated" -ge 20000 ] || { echo "fuzz-http: only $generated requests; raise EXAMPLES" >&2; exit 1; }
