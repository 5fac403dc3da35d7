#!/usr/bin/env bash
# scripts/record.sh watch|run|hold: records the app's autoscaler, with traffic for run and hold.
# scripts/record.sh explain: explains the recording in the folder RECORDING again.
. "$(dirname "$0")/lib.sh"

need cargo
recorder=(cargo run --locked --package recorder --)
command=$1
if [[ $command == explain ]]; then
  exec "${recorder[@]}" explain "$RECORDING/observations.jsonl" --output "$RECORDING"
fi

arguments=("$command")
# option NAME VALUE: the option, unless the value is empty.
option() { [[ -z $2 ]] || arguments+=("$1" "$2"); }

traffic=()
case $command in
  watch)
    option --for "$FOR"
    option --expect "$EXPECT"
    ;;
  run)
    need bombardier
    option --expect "$EXPECT"
    [[ $UNTIL_IDLE == no ]] || option --until-idle "$UNTIL_IDLE"
    set_traffic
    traffic=(-- bombardier -o json -p r -l "${traffic[@]}")
    ;;
  hold)
    need bombardier
    [[ ! $URL =~ ^[a-z]+://[^/?#]*@ ]] || fail "\`URL\` has a login, which \`make hold\` does not send"
    [[ -n $REPLICAS ]] ||
      fail "\`REPLICAS\` is empty; it must be a number, as in \`make hold REPLICAS=7\`"
    arguments+=("$REPLICAS")
    ;;
esac
option --within "$WITHIN"
option --hold "$HOLD"
option --serve "$SERVE"

show_context
exec "${recorder[@]}" "${arguments[@]}" --namespace "$NAMESPACE" --deployment "$app" \
  --url "$URL" --output "$OUTPUT" ${traffic[@]+"${traffic[@]}"}
