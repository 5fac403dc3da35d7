#!/usr/bin/env bash
# Deploys IMAGE with its AUTOSCALER, its Ingress and its RUNTIME_CONFIG, and waits until it is
# ready.
. "$(dirname "$0")/lib.sh"

[[ $AUTOSCALER == keda || $AUTOSCALER == hpa ]] ||
  fail "\`AUTOSCALER\` is \"$AUTOSCALER\"; it must be \"keda\" or \"hpa\""
[[ -z $RUNTIME_CONFIG || -r $RUNTIME_CONFIG ]] ||
  fail "\`RUNTIME_CONFIG\` is \"$RUNTIME_CONFIG\"; there is no such file"
show_context
[[ $AUTOSCALER == hpa ]] || has_keda ||
  fail "this cluster has no KEDA: install it, or use \`make deploy AUTOSCALER=hpa\`"
"${kube[@]}" get spinappexecutor containerd-shim-spin >/dev/null ||
  fail "the namespace \`$NAMESPACE\` needs the executor \`containerd-shim-spin\`:" \
    "kubectl apply --namespace $NAMESPACE -f $(operator_file shim-executor)"
others=$(other_autoscalers)
[[ -z $others ]] || fail "\`$app\` has another autoscaler; with two, neither scales it. Delete it first:
$others"

# While its ScaledObject is paused, KEDA has no HPA for the app. The second annotation is a boolean
# of Go; KEDA takes anything else as true.
fail_if_paused() {
  local annotation='.metadata.annotations.autoscaling\.keda\.sh/paused' paused
  paused=$("${kube[@]}" get "scaledobject/$scaler" --ignore-not-found \
    --output "jsonpath={$annotation-replicas} {$annotation}")
  [[ $paused =~ ^\ ?(0|f|F|false|False|FALSE)?$ ]] ||
    fail "the ScaledObject \`$scaler\` is paused. Resume it first:
  kubectl annotate scaledobject/$scaler --namespace $NAMESPACE \\
    autoscaling.keda.sh/paused- autoscaling.keda.sh/paused-replicas-"
}
[[ $AUTOSCALER == hpa ]] || fail_if_paused

# The annotation of the Deployment with the time of deployment.
deployed=cpu-load-gen/deployed
now=$(date +%s)

# runtime_config FORMAT: the Secret with RUNTIME_CONFIG. Its name ends with a hash of the file: a
# changed file is another Secret and so a new rollout. Until it is complete, the old replicas, and
# any that the autoscaler adds, read the old one.
runtime_config() {
  kubectl create secret generic "$app-runtime-config" --namespace "$NAMESPACE" --append-hash \
    --from-file=runtime-config.toml=/dev/stdin --dry-run=client --output "$1" <"$RUNTIME_CONFIG"
}

secret='' reads=''
if [[ -n $RUNTIME_CONFIG ]]; then
  secret=$(runtime_config 'jsonpath={.metadata.name}')
  runtime_config yaml | kubectl label --local -f - "$config_label" --output yaml |
    show "${kube[@]}" apply -f -
  reads=",\"runtimeConfig\":{\"loadFromSecret\":\"$secret\"}"
fi
kubectl patch --local -f "$samples/keda-app.yaml" --type merge --output yaml \
  --patch "{\"spec\":{\"image\":\"$IMAGE\",\"deploymentAnnotations\":{\"$deployed\":\"$now\"}$reads}}" |
  show "${kube[@]}" apply -f -

# explain: prints the messages of Kubernetes about why the app is not ready.
explain() {
  local bad='ReplicaFailure=True|Progressing=False|Paused=True'
  bad+='|(Ready|ScalingActive|AbleToScale)=(False|Unknown)'
  # shellcheck disable=SC2016 # A variable of the template.
  local template='{{$kind := .kind}}{{range .status.conditions}}{{$kind}}: {{.type}}={{.status}}: '
  template+='{{.reason}}: {{.message}}{{"\n"}}{{end}}'
  local kinds=spinapps,deployments,pods,hpa object existing of=.involvedObject
  echo "error: \`$app\` is not ready:"
  for object in "deployment/$app" "scaledobject/$scaler" "hpa/$scaler" "hpa/keda-hpa-$scaler"; do
    "${kube[@]}" get "$object" --output "go-template=$template" 2>/dev/null | grep -E "$bad" || true
  done
  "${kube[@]}" get "deployment/$app" --output "jsonpath={.metadata.annotations.$deployed}" 2>&1 |
    grep -qx "$now" ||
    echo 'Spin Operator has not applied the SpinApp to a Deployment. Its log has the reason:' \
      'kubectl logs --namespace spin-operator --selector control-plane=controller-manager' \
      '--tail -1 | grep ERROR | tail -1'
  # Events outlive their objects by an hour, and a new HPA has the name of the old one.
  ! has_keda || kinds+=,scaledobjects
  existing=$("${kube[@]}" get "$kinds" --output 'jsonpath={.items[*].metadata.uid}') || true
  # The condition ReplicaFailure above has the message of the ReplicaSet's events.
  "${kube[@]}" get events --field-selector 'type=Warning,involvedObject.kind!=ReplicaSet' \
    --sort-by .metadata.creationTimestamp --no-headers --output "custom-columns=UID:$of.uid,\
KIND:$of.kind,NAME:$of.name,REASON:.reason,MESSAGE:.message" |
    grep -E "^(${existing// /|}) .* ($app|$scaler|keda-hpa-$scaler)[- ]" |
    sed 's/^[^ ]* *//' | tail -5 || true
  echo 'Causes and remedies: docs/kubernetes.md#when-the-app-does-not-start'
} >&2
# A failed command ends the script (`set -e` in lib.sh). Before that, say what Kubernetes reports.
trap '(($? == 0)) || explain' EXIT

# Spin Operator creates the Deployment a moment later, and changes it a moment after each change of
# the SpinApp: wait for that change before its rollout. KEDA's webhook refuses a ScaledObject whose
# Deployment does not exist.
show "${kube[@]}" wait --for=create "deployment/$app" --timeout=60s
show "${kube[@]}" wait "--for=jsonpath={.metadata.annotations.$deployed}=$now" "deployment/$app" \
  --timeout=60s
show "${kube[@]}" rollout status "deployment/$app" --timeout=3m
# No replica uses an earlier runtime config any more.
"${kube[@]}" delete secrets --selector "$config_label" --field-selector "metadata.name!=$secret"

# With two autoscalers neither scales, and KEDA refuses to be the second: delete the other first. An
# HPA is ScalingActive once it has read a metric; until then nothing scales.
if [[ $AUTOSCALER == keda ]]; then
  show "${kube[@]}" delete --ignore-not-found -f config/hpa/hpa.yaml
  show "${kube[@]}" apply -f "$samples/keda-scaledobject.yaml"
  fail_if_paused
  show "${kube[@]}" wait --for=condition=Ready "scaledobject/$scaler" --timeout=2m
  show "${kube[@]}" wait --for=create "hpa/keda-hpa-$scaler" --timeout=60s
  show "${kube[@]}" wait --for=condition=ScalingActive "hpa/keda-hpa-$scaler" --timeout=5m
else
  ! has_keda ||
    show "${kube[@]}" delete --ignore-not-found --timeout=1m -f "$samples/keda-scaledobject.yaml"
  show "${kube[@]}" wait --for=delete "hpa/keda-hpa-$scaler" --timeout=60s
  show "${kube[@]}" apply -f config/hpa/hpa.yaml
  show "${kube[@]}" wait --for=condition=ScalingActive "hpa/$scaler" --timeout=5m
fi
show "${kube[@]}" apply -f "$samples/ingress.yaml"
# The app is ready: whatever fails from here on concerns its address.
trap - EXIT
scripts/address.sh
