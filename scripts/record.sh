#!/usr/bin/env bash
# scripts/record.sh watch|run|hold: has the recorder watch the app's autoscaler, or load the app as well.
# scripts/record.sh explain: has it explain the recording in the folder RECORDING again.
. "$(dirname "$0")/lib.sh"

recorder=(cargo run --locked --package recorder --)
command=$1
if [[ $command == explain ]]; then
  exec "${recorder[@]}" explain "$RECORDING/observations.jsonl" --output "$RECORDING"
fi

arguments=("$command")
# option NAME VALUE: the option, unless the value is empty.
option() { [[ -z $2 ]] || arguments+=("$1" "$2"); }

load=()
case $command in
  watch)
    option --for "$FOR"
    option --expect "$EXPECT"
    ;;
  run)
    need bombardier
    option --expect "$EXPECT"
    [[ $UNTIL_IDLE == no ]] || option --until-idle "$UNTIL_IDLE"
    load=(-- bombardier -o json -p r -l -c "$CONNECTIONS" -t "$TIMEOUT" -d "$DURATION" "$URL")
    ;;
  hold)
    need bombardier
    [[ -n $REPLICAS ]] || fail "REPLICAS is empty; it must be a number, as in \`make hold REPLICAS=7\`"
    arguments+=("$REPLICAS")
    ;;
esac
option --within "$WITHIN"
option --hold "$HOLD"
option --serve "$SERVE"

show_context
exec "${recorder[@]}" "${arguments[@]}" --namespace "$NAMESPACE" --deployment "$app" \
  --url "$URL" --output "$OUTPUT" ${load[@]+"${load[@]}"}
