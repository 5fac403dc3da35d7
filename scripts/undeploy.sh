#!/usr/bin/env bash
# Deletes the app, its autoscaler, its Ingress and its runtime config from NAMESPACE of the current
# context.
. "$(dirname "$0")/lib.sh"

show_context
autoscalers=$("${kube[@]}" get "hpa/$scaler" "hpa/keda-hpa-$scaler" --ignore-not-found \
  --output name)
# kubectl says "deleted" first and then waits: for KEDA here, and for the pods below, which may take
# half a minute to end.
! has_keda ||
  show "${kube[@]}" delete --ignore-not-found --timeout=1m -f "$samples/keda-scaledobject.yaml"
"${kube[@]}" delete --ignore-not-found -f config/hpa/hpa.yaml
show "${kube[@]}" wait --for=delete "hpa/keda-hpa-$scaler" --timeout=1m
gone=$SECONDS
show "${kube[@]}" delete --ignore-not-found --timeout=2m \
  -f "$samples/ingress.yaml" -f "$samples/keda-app.yaml"
"${kube[@]}" delete secrets --selector "$config_label"
show "${kube[@]}" wait --for=delete "deployment/$app" --timeout=2m
others=$(other_autoscalers)
[[ -z $others ]] ||
  echo "\`$app\` still has autoscalers, which \`make deploy\` did not create. To delete them:
$others"

# Kubernetes notices a deleted HPA at its next synchronisation, 15 seconds after the last. An HPA of
# the same name that exists by then inherits the recommendations of the last five minutes, and
# scales an idle app out to the highest of them.
left=$((20 - (SECONDS - gone)))
if [[ -n $autoscalers ]] && ((left > 0)); then
  echo "Waiting $left s until Kubernetes has forgotten the recommendations of the autoscaler"
  sleep "$left"
fi
