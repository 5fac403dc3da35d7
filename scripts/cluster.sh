#!/usr/bin/env bash
# scripts/cluster.sh create|delete: the k3d cluster CLUSTER with SpinKube and KEDA, reached through PORT of this machine.
# Starts and deletes only what carries the project's label: another cluster of this name belongs to somebody else.
. "$(dirname "$0")/lib.sh"

need docker k3d
context=k3d-$CLUSTER
label=cpu-load-gen.cluster=$CLUSTER
any=$(docker ps --quiet --all --filter "label=k3d.cluster=$CLUSTER")
own=$(docker ps --quiet --all --filter "label=$label")
running=$(docker ps --quiet --filter "label=$label")
[[ -z $any || -n $own ]] ||
  fail "the k3d cluster $CLUSTER was not made by \`make cluster\`: choose another name with CLUSTER=…, or delete it yourself (k3d cluster delete $CLUSTER)"

if [[ $1 == delete ]]; then
  echo "Cluster $CLUSTER, context $context"
  if [[ -n $any ]]; then k3d cluster delete "$CLUSTER"; else echo 'There is no such k3d cluster'; fi
  exit
fi

need kubectl helm
echo "Cluster $CLUSTER, context $context, namespace $NAMESPACE"

if [[ -z $any ]]; then
  # shellcheck disable=SC2086 # Flags, separated by spaces.
  k3d cluster create "$CLUSTER" --runtime-label "$label@server:0" --agents 2 --port "$PORT:80@loadbalancer" \
    --image "ghcr.io/spinframework/containerd-shim-spin/k3d:$K3D_SHIM_VERSION" $K3D_FLAGS
elif [[ -z $running ]]; then
  k3d cluster start "$CLUSTER"
else
  echo "k3d cluster $CLUSTER is running"
fi

# kubectl in this cluster, whatever the current context is.
kube=(kubectl --context "$context")

# install RELEASE VERSION CHART [FLAG…]: into a namespace of its own; left alone where this version is there already.
install() {
  local release=$1 version=$2
  if helm list --kube-context "$context" --namespace "$release" --deployed --output json | grep -q "\"chart\":\"$release-$version\""; then
    echo "$release $version is installed"
  else
    helm upgrade --install "$release" "${@:3}" --version "$version" --kube-context "$context" --namespace "$release" \
      --create-namespace --wait --timeout 5m
  fi
}

install cert-manager "$CERT_MANAGER_VERSION" oci://quay.io/jetstack/charts/cert-manager --set crds.enabled=true
show "${kube[@]}" apply -f "$(operator_file runtime-class)"
show "${kube[@]}" apply -f "$(operator_file crds)"
install spin-operator "$SPIN_OPERATOR_VERSION" oci://ghcr.io/spinframework/charts/spin-operator
"${kube[@]}" get namespace "$NAMESPACE" >/dev/null 2>&1 || show "${kube[@]}" create namespace "$NAMESPACE"
# The operator's webhook checks this, and its certificate may arrive a moment after the operator.
tries=0
until show "${kube[@]}" apply --namespace "$NAMESPACE" -f "$(operator_file shim-executor)"; do
  tries=$((tries + 1))
  ((tries < 12)) || exit 1
  sleep 5
done
install keda "$KEDA_VERSION" keda --repo https://kedacore.github.io/charts
kubectl config use-context "$context"
