#!/usr/bin/env bash
# Follows the scaling of the app in the current context, a line at a time: scripts/watch.sh [--for 5m] [--every 5s] [--namespace N] [--deployment N]
set -euo pipefail

fail() {
  echo "watch: $*" >&2
  exit 2
}

# Seconds of a duration such as 90, 90s, 5m or 1h.
seconds() {
  [[ $2 =~ ^([1-9][0-9]*)([smh]?)$ ]] || fail "$1 is '$2'; it must be a whole number above 0 with s, m or h, such as 90s or 5m"
  case ${BASH_REMATCH[2]} in
    h) echo $((BASH_REMATCH[1] * 3600)) ;;
    m) echo $((BASH_REMATCH[1] * 60)) ;;
    *) echo "${BASH_REMATCH[1]}" ;;
  esac
}

limit='' every=5 namespace=default deployment=keda-spinapp
while (($#)); do
  (($# > 1)) || fail "$1 needs a value"
  case $1 in
    --for) limit=$(seconds FOR "$2") ;;
    --every) every=$(seconds EVERY "$2") ;;
    --namespace) namespace=$2 ;;
    --deployment) deployment=$2 ;;
    *) fail "unknown option $1; there are --for, --every, --namespace and --deployment" ;;
  esac
  shift 2
done

# Found by its target, since KEDA names its HPA otherwise than hpa.yaml does.
hpa_fields="{range .items[?(@.spec.scaleTargetRef.name=='$deployment')]}"
hpa_fields+='{.status.desiredReplicas} {.status.currentMetrics[0].resource.current.averageUtilization} {.spec.metrics[0].resource.target.averageUtilization}{end}'
deployment_fields='{.status.replicas} {.status.readyReplicas}'

sample() {
  local replicas=0 ready=0 desired='-' cpu='-' current target fields
  fields=$(kubectl get deployment "$deployment" --namespace "$namespace" --output "jsonpath=$deployment_fields") || return
  IFS=' ' read -r replicas ready <<<"$fields" || true
  fields=$(kubectl get horizontalpodautoscalers.v2.autoscaling --namespace "$namespace" --output "jsonpath=$hpa_fields") || return
  if [[ -n $fields ]]; then
    # Each is empty until there is a metric, so they are split at every single space.
    desired=${fields%% *} current=${fields#* } target=${fields##* }
    current=${current%% *}
    cpu="${current:-?}%/${target:-?}%"
  fi
  printf '%-10s %9s %7s %9s   %s\n' "$(date +%H:%M:%S)" "${replicas:-0}" "${ready:-0}" "${desired:-0}" "$cpu"
}

stop='' seen=''
trap 'stop=yes' INT TERM
printf '%-10s %9s %7s %9s   %s\n' TIME REPLICAS READY DESIRED CPU/TARGET
until [[ -n $stop || (-n $limit && $SECONDS -ge $limit) ]]; do
  if sample; then
    seen=yes
  elif [[ -z $seen && -z $stop ]]; then
    fail "cannot read deployment $deployment in namespace $namespace: is it deployed there (make deploy)?"
  fi
  # In the background, so that a signal ends the wait at once.
  sleep "$every" &
  wait $! || true
done

echo
echo "Scaling of deployment $deployment:"
trap '' INT TERM
kubectl get events --namespace "$namespace" --sort-by=.lastTimestamp \
  --field-selector "involvedObject.kind=Deployment,involvedObject.name=$deployment,reason=ScalingReplicaSet" \
  --output 'custom-columns=TIME:.lastTimestamp,MESSAGE:.message'
