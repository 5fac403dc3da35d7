#!/usr/bin/env bash
# bombardier, which fails where anything but 2xx came back: scripts/load.sh [FLAG FOR bombardier…] URL
set -euo pipefail

fail() {
  echo "make: $*" >&2
  exit 1
}

url=${*: -1}
status=$(curl --silent --show-error --output /dev/null --max-time 30 --write-out '%{http_code}' "$url") || status=nothing
# An Ingress that does not know the app answers too, with 404 or a redirection.
[[ $status == 2?? ]] || fail "$url answers $status in place of 200: run make deploy, or give another URL=…"

# The progress is drawn anew several times a second: good on a terminal only.
print=intro,result
[[ ! -t 1 ]] || print=intro,progress,result

report=$(mktemp)
trap 'rm -f "$report"' EXIT
bombardier --print "$print" "$@" | tee "$report"

# bombardier itself ends with 0 whatever came back.
count() { sed -n "s/.*$1 - \([0-9][0-9]*\).*/\1/p" "$report"; }
good=$(count 2xx)
[[ -n $good ]] || fail "bombardier's report has no counts of HTTP codes: is it version 1.2 or newer?"
bad=$(($(count 1xx) + $(count 3xx) + $(count 4xx) + $(count 5xx) + $(count others)))
((good > 0 && bad == 0)) || fail "$bad of $((good + bad)) requests were not answered with 2xx"
