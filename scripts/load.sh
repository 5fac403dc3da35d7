#!/usr/bin/env bash
# Loads URL with CONNECTIONS at once for DURATION; fails if a response is not 2xx.
. "$(dirname "$0")/lib.sh"

need bombardier curl
# HEAD: a GET would run the load of URL, for minutes if it is a paced one.
status=$(curl --head --silent --show-error --output /dev/null --max-time 30 --write-out '%{http_code}' "$URL") || status=nothing
# An Ingress that does not know the app also responds, with 404 or a redirect.
[[ $status == 2?? ]] || fail "$URL responds with $status instead of 200: run make deploy, or set another URL=…"

# The progress bar is redrawn several times a second, which only suits a terminal.
print=intro,result
[[ ! -t 1 ]] || print=intro,progress,result

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
# bombardier's own report does not count the responses that took longer than the timeout. This format prints the first of
# 10,000 percentiles that is above the timeout.
cat >"$folder/format" <<END
{{- \$timeout := .Spec.Timeout.Microseconds -}}
{{- with .Result -}}
{{- with .RequestsStats (FloatsToArray 0.5) }}
  Requests per second  {{ printf "%.1f" .Mean }}
{{- end -}}
{{- with .LatenciesStats (FloatsToArray 0.5 0.95 0.99) }}
  Latency              {{ range \$p, \$us := .Percentiles }}p{{ Multiply \$p 100 }} {{ FormatTimeUsUint64 \$us }}, {{ end }}max {{ FormatTimeUs .Max }}
{{- end -}}
{{- \$late := false -}}
{{- with .LatenciesStats (FloatsToArray $(awk 'BEGIN { for (i = 1; i <= 10000; i++) printf " %.4f", i / 10000 }')) -}}
{{- range \$p, \$us := .Percentiles -}}
{{- if and (not \$late) (gt \$us \$timeout) }}{{ \$late = true }}
  Above the timeout    from p{{ printf "%.2f" (Multiply \$p 100) }} on
{{- end -}}
{{- end -}}
{{- end }}
  HTTP codes           1xx - {{ .Req1XX }}, 2xx - {{ .Req2XX }}, 3xx - {{ .Req3XX }}, 4xx - {{ .Req4XX }}, 5xx - {{ .Req5XX }}, others - {{ .Others }}
{{- range .Errors }}
    {{ .Error }} - {{ .Count }}
{{- end }}
{{ end -}}
END
bombardier --print "$print" --format "path:$folder/format" \
  -c "$CONNECTIONS" -t "$TIMEOUT" -d "$DURATION" "$URL" | tee "$folder/report"

# count CODES: the number of responses with these codes.
count() { sed -n "s/.* $1 - \([0-9][0-9]*\).*/\1/p" "$folder/report"; }
good=$(count 2xx)
[[ -n $good ]] || fail "bombardier's report has no counts of HTTP codes: is it version 1.2 or newer?"
bad=$(($(count 1xx) + $(count 3xx) + $(count 4xx) + $(count 5xx) + $(count others)))
all=$((good + bad))

late_from=$(sed -n 's/.*timeout  *from p\([0-9.]*\) on/\1/p' "$folder/report")
if [[ -n $late_from ]]; then
  late=$(awk -v all="$all" -v p="$late_from" 'BEGIN { rank = int(p / 100 * all + 0.5); print all - (rank > 0 ? rank : 1) + 1 }')
  echo "$late of $all requests took longer than the timeout of $TIMEOUT. bombardier gives up after that and retries up to"
  echo "four times: the app saw those clients disconnect, and their latency is that of all attempts together."
fi

# bombardier itself ends with 0 whatever the responses are.
((good > 0 && bad == 0)) || fail "$bad of $all requests got no 2xx response"
