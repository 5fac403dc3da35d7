#!/usr/bin/env bash
# Loads URL with CONNECTIONS at once for DURATION; fails if a response is not 2xx.
. "$(dirname "$0")/lib.sh"

need bombardier curl
set_traffic
echo "Loading $shown with $CONNECTIONS connections for $DURATION, with a timeout of $TIMEOUT"
# As bombardier: the URL as it is, and no proxy.
get=(curl --silent --show-error --globoff --noproxy '*' --max-time 30)
# HEAD: a GET would run the load of URL, for minutes if it is a paced one.
status=$("${get[@]}" --head --output /dev/null --write-out '%{http_code}' "$URL") || status=nothing
case $status in
  2??) ;;
  # The app rejects a GET too, and says why.
  400 | 500) fail "$shown responds with $status: $("${get[@]}" "$URL")" ;;
  401) fail "$shown responds with 401: \`URL\` needs a login, as in http://user:password@host" ;;
  # An Ingress that does not know the app also responds, with 404 or a redirect.
  *) fail "$shown responds with $status: run \`make deploy\`, or set another \`URL\`" ;;
esac

# The progress bar is redrawn several times a second, which only suits a terminal.
print=intro,result
[[ ! -t 1 ]] || print=intro,progress,result
report=$(mktemp)
trap 'rm -f "$report"' EXIT
bombardier --print "$print" "${traffic[@]}" | tee "$report"

# bombardier itself ends with 0 whatever the responses are.
# count CODES: the number of responses with these codes.
count() { sed -n "s/.* $1 - \([0-9][0-9]*\).*/\1/p" "$report"; }
good=$(count 2xx)
[[ -n $good ]] ||
  fail "bombardier's report has no counts of HTTP codes: is it version 1.2 or newer?"
bad=$(($(count 1xx) + $(count 3xx) + $(count 4xx) + $(count 5xx) + $(count others)))
((good > 0 && bad == 0)) || fail "$bad of $((good + bad)) requests got no 2xx response"
