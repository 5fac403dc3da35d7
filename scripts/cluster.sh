#!/usr/bin/env bash
# scripts/cluster.sh create|delete: the cluster CLUSTER with SpinKube and KEDA, which CLUSTER_WITH
# (k3d or kind) runs in Docker, reached through PORT of this machine. Starts and deletes only
# containers with the project's label: another cluster of this name belongs to somebody else.
. "$(dirname "$0")/lib.sh"

case $CLUSTER_WITH in
  k3d) nodes=k3d.cluster=$CLUSTER label=cpu-load-gen.cluster=$CLUSTER server=$label ;;
  kind) nodes=io.x-k8s.kind.cluster=$CLUSTER label=cpu-load-gen.cluster=kind-$CLUSTER server=$nodes ;;
  *) fail "\`CLUSTER_WITH\` is \"$CLUSTER_WITH\"; it must be \"k3d\" or \"kind\"" ;;
esac
context=$CLUSTER_WITH-$CLUSTER
image=ghcr.io/spinframework/containerd-shim-spin

tools=(docker "$CLUSTER_WITH")
[[ $1 == delete ]] || tools+=(kubectl helm)
need "${tools[@]}"
echo "Cluster $CLUSTER, context $context"
all=$(docker ps --quiet --all --filter "label=$nodes")
own=$(docker ps --quiet --all --filter "label=$label")
running=$(docker ps --quiet --filter "label=$server")
[[ -z $all || -n $own ]] ||
  fail "\`make cluster\` did not create the $CLUSTER_WITH cluster \`$CLUSTER\`:" \
    "choose another name with CLUSTER=…, or delete it yourself with $CLUSTER_WITH"

# k3d brings Traefik, metrics-server and a load balancer, which has the port. The label is on the
# server node.
k3d_create() {
  # shellcheck disable=SC2086 # Flags, separated by spaces.
  k3d cluster create "$CLUSTER" --image "$image/k3d:$K3D_SHIM_VERSION" \
    --runtime-label "$label@server:0" --port "$PORT:80@loadbalancer" --agents 2 $K3D_FLAGS
}
k3d_start() { k3d cluster start "$CLUSTER"; }
k3d_delete() { k3d cluster delete "$CLUSTER"; }

# kind includes none of them. Its nodes know a registry beside them as localhost:REGISTRY_PORT, as
# this machine does; the registry has the label. The first worker has the port. The patch has the
# key of containerd's version 3, as SpinKube's own has. In kind's file, of version 2, it replaces
# all runtimes, and with them runc's `SystemdCgroup = true`. The key of version 2 keeps that, but
# then the shim uses the cgroups of systemd, for which it needs D-Bus, and kind's nodes have none.
registry=$CLUSTER-registry
kind_create() {
  [[ -n $own ]] || docker run --detach --restart always --name "$registry" --label "$label" \
    --publish "127.0.0.1:$REGISTRY_PORT:5000" "registry:$REGISTRY_VERSION"
  kind create cluster --name "$CLUSTER" --image "$image/kind:$KIND_SHIM_VERSION" --config - <<END
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
containerdConfigPatches:
  - |-
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.spin]
      runtime_type = "io.containerd.spin.v2"
    [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.spin.options]
      SystemdCgroup = true
nodes:
  - role: control-plane
  - role: worker
    extraPortMappings:
      - containerPort: 80
        hostPort: $PORT
        listenAddress: 127.0.0.1
  - role: worker
END
}
kind_connect_registry() {
  [[ $(docker inspect --format '{{json .NetworkSettings.Networks.kind}}' "$registry") != null ]] ||
    docker network connect kind "$registry"
  local node hosts=/etc/containerd/certs.d/localhost:$REGISTRY_PORT
  for node in $(kind get nodes --name "$CLUSTER"); do
    docker exec "$node" mkdir -p "$hosts"
    docker exec --interactive "$node" cp /dev/stdin "$hosts/hosts.toml" \
      <<<"[host.\"http://$registry:5000\"]"
  done
}
kind_start() {
  # shellcheck disable=SC2086 # Identifiers, separated by spaces.
  docker start $all $own
}
kind_delete() {
  kind delete cluster --name "$CLUSTER"
  # shellcheck disable=SC2086
  docker rm --force $own
}

if [[ $1 == delete ]]; then
  if [[ -n $all$own ]]; then
    "${CLUSTER_WITH}_delete"
  else
    echo "There is no such $CLUSTER_WITH cluster"
  fi
  exit
fi

if [[ -z $all ]]; then
  "${CLUSTER_WITH}_create"
elif [[ -z $running ]]; then
  "${CLUSTER_WITH}_start"
else
  echo "$CLUSTER_WITH cluster $CLUSTER is running"
fi

# kubectl in this cluster, whatever the current context is.
kube=(kubectl --context "$context")

# install RELEASE VERSION CHART [FLAG…]: into a namespace of its own; does nothing if this version
# is installed already. The chart is an address of OCI, or else RELEASE in the repository at that
# address.
install() {
  local release=$1 version=$2 chart=("$3")
  [[ $3 == oci:* ]] || chart=("$release" --repo "$3")
  if helm list --kube-context "$context" --namespace "$release" --deployed --output json |
    grep -F "\"chart\":\"$release-$version\"" >/dev/null; then
    echo "$release $version is installed"
  else
    helm upgrade --install "$release" "${chart[@]}" --version "$version" --kube-context "$context" \
      --namespace "$release" --create-namespace --wait --timeout 5m "${@:4}"
  fi
}

if [[ $CLUSTER_WITH == kind ]]; then
  kind_connect_registry
  # kind's kubelets have certificates that no authority of the cluster signed.
  install metrics-server "$METRICS_SERVER_VERSION" https://kubernetes-sigs.github.io/metrics-server \
    --set 'args={--kubelet-insecure-tls}'
  # On every worker, so also on the one with the port. Only one pod at a time can use a
  # port of the node, so there is no surge.
  install traefik "$TRAEFIK_VERSION" https://traefik.github.io/charts \
    --set deployment.kind=DaemonSet --set ports.web.hostPort=80 --set service.spec.type=ClusterIP \
    --set updateStrategy.rollingUpdate.maxUnavailable=1 \
    --set updateStrategy.rollingUpdate.maxSurge=0
fi
install cert-manager "$CERT_MANAGER_VERSION" oci://quay.io/jetstack/charts/cert-manager \
  --set crds.enabled=true
show "${kube[@]}" apply -f "$(operator_file runtime-class)"
show "${kube[@]}" apply -f "$(operator_file crds)"
install spin-operator "$SPIN_OPERATOR_VERSION" oci://ghcr.io/spinframework/charts/spin-operator
"${kube[@]}" get namespace "$NAMESPACE" >/dev/null 2>&1 ||
  show "${kube[@]}" create namespace "$NAMESPACE"
# The operator's webhook checks this, and its certificate may arrive a moment after the operator.
tries=0
until show "${kube[@]}" apply --namespace "$NAMESPACE" -f "$(operator_file shim-executor)"; do
  tries=$((tries + 1))
  ((tries < 12)) || exit 1
  sleep 5
done
install keda "$KEDA_VERSION" https://kedacore.github.io/charts
kubectl config use-context "$context"
