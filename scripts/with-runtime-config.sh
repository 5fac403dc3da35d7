#!/usr/bin/env bash
# Gives a SpinApp a runtime config: scripts/with-runtime-config.sh FILE NAMESPACE APP LABEL <the SpinApp >its Secret and the SpinApp
# The Secret is named for its content: a changed file is another Secret and so a new rollout, and until that is through
# the replicas there are, and any that the autoscaler adds, read the old one.
set -euo pipefail

file=$1 namespace=$2 app=$3 label=$4

secret() {
  kubectl create secret generic "$app-runtime-config" --namespace "$namespace" --append-hash \
    --from-file="runtime-config.toml=$file" --dry-run=client --output "$1"
}

name=$(secret 'jsonpath={.metadata.name}')
secret yaml | kubectl label --local -f - "$label" --output yaml
echo ---
kubectl patch --local -f - --type merge --patch "{\"spec\":{\"runtimeConfig\":{\"loadFromSecret\":\"$name\"}}}" --output yaml
