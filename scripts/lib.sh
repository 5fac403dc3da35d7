#!/usr/bin/env bash
# shellcheck disable=SC2034
# Sourced by the scripts beside it. They take their settings from the environment, to which the
# Makefile exports them. `scripts/lib.sh FUNCTION [ARGUMENT]…` calls one of its functions.
set -euo pipefail
# Numbers, classes of characters and their order are the same everywhere.
export LC_ALL=C
CDPATH='' cd -- "$(dirname "${BASH_SOURCE[0]}")/.."
# shellcheck source=versions.env
. scripts/versions.env

# fail MESSAGE…
fail() {
  echo "error: $*" >&2
  exit 1
}

# need TOOL…: fails if tools are missing, and says how to install them.
need() {
  local tool how missing=0
  for tool; do
    command -v "$tool" >/dev/null && continue
    case $tool in
      bombardier) how='go install github.com/codesenberg/bombardier@latest' ;;
      cargo) how=https://rustup.rs ;;
      cargo-fuzz) how="cargo install --locked cargo-fuzz@$CARGO_FUZZ_VERSION" ;;
      curl) how=https://curl.se ;;
      docker) how=https://docs.docker.com/engine/install/ ;;
      helm) how=https://helm.sh/docs/intro/install/ ;;
      k3d) how=https://k3d.io ;;
      kind) how=https://kind.sigs.k8s.io ;;
      kubectl) how='https://kubernetes.io/docs/tasks/tools/ (1.31 or newer)' ;;
      python3) how=https://www.python.org/downloads/ ;;
      rustup) how=https://rustup.rs ;;
      shellcheck) how='apt-get install shellcheck, brew install shellcheck, or https://www.shellcheck.net' ;;
      *) how='no instructions are known' ;;
    esac
    echo "error: $tool is not installed: $how" >&2
    missing=1
  done
  ((!missing)) || exit 1
}

# need_target: installs the Rust target of the component if it is missing.
need_target() {
  need rustup
  rustup target list --installed | grep -x wasm32-wasip1 >/dev/null ||
    rustup target add wasm32-wasip1
}

# find_spin: sets `spin` to the Spin that SPIN names, else to the one on PATH. With neither, `spin`
# is empty and `no_spin` is the reason. Fails if SPIN names something that is not a working Spin.
find_spin() {
  local name=${SPIN:-spin} answer
  spin=$(command -v -- "$name") || spin=''
  if [[ -z $spin ]]; then
    no_spin="Spin is not installed (https://spinframework.dev/install)"
    [[ -z ${SPIN:-} ]] || fail "\`SPIN\` is \"$SPIN\"; there is no such program"
    return
  fi
  # Only the version distinguishes Spin from the model checker that Debian packages as spin.
  [[ $spin == /* ]] || spin=$PWD/$spin
  answer=$("$spin" --version 2>&1) && [[ $answer == 'spin '[0-9]* ]] && return
  [[ -z ${SPIN:-} ]] ||
    fail "\`SPIN\` is \"$SPIN\"; it is not a working Spin: \`$spin --version\` prints \"${answer%%$'\n'*}\""
  no_spin="$spin is not Spin but another program (https://spinframework.dev/install)"
  spin=''
}

# need_spin: the same, but fails without a Spin.
need_spin() {
  find_spin
  [[ -n $spin ]] || fail "$no_spin"
}

# with_spin COMMAND…: runs the command with the path of a working Spin in SPIN.
with_spin() {
  need_spin
  SPIN=$spin exec "$@"
}

# The objects of config/samples, and the label of the Secrets with their runtime configs.
app=keda-spinapp
scaler=cpu-scaling
samples=config/samples
config_label=cpu-load-gen/runtime-config=$app

# operator_file NAME: the address of one of the manifests that Spin Operator is released with.
operator_file() {
  echo "https://github.com/spinframework/spin-operator/releases/download/v$SPIN_OPERATOR_VERSION/spin-operator.$1.yaml"
}

# kubectl in the namespace of the app.
kube=(kubectl --namespace "${NAMESPACE:-default}")

# show_context: prints the context and namespace that the next commands act on.
show_context() {
  need kubectl
  context=$(kubectl config current-context 2>/dev/null) ||
    fail "kubectl has no current context: run \`make cluster\`, or choose one with \`kubectl config use-context\`"
  kubectl version --request-timeout=10s >/dev/null 2>&1 ||
    fail "the cluster of the context \`$context\` does not respond; \`kubectl version\` says why"
  echo "Context $context, namespace $NAMESPACE"
}

# set_traffic: sets `traffic` to the arguments with which bombardier loads URL, and `shown` to URL
# without its login. bombardier prints its URL, and would not send the login in it.
set_traffic() {
  local login=${URL#*://}
  login=${login%%[/?#]*}
  shown=$URL traffic=()
  if [[ $login == *@* ]]; then
    login=${login%@*}
    shown=${URL/"$login@"/}
    [[ $login == *:* ]] || login+=:
    login=${login//\\/\\\\}
    login=$(printf %b "${login//%/\\x}" | base64 | tr -d '\n')
    traffic=(-H "Authorization: Basic $login")
  fi
  traffic+=(-c "$CONNECTIONS" -t "$TIMEOUT" -d "$DURATION" "$shown")
}

# show COMMAND…: prints the command, then runs it.
show() {
  echo "$*"
  "$@"
}

# has_keda: whether the cluster has the API of KEDA.
has_keda() {
  [[ -n $(kubectl api-resources --api-group=keda.sh --output=name) ]]
}

# other_autoscalers: the commands that delete the autoscalers of the app that `make deploy` did not
# create. An HPA that KEDA created is deleted with its ScaledObject.
other_autoscalers() {
  local kinds=hpa target=.spec.scaleTargetRef
  ! has_keda || kinds+=,scaledobjects
  "${kube[@]}" get "$kinds" --ignore-not-found --no-headers --output "custom-columns=KIND:.kind,\
NAME:.metadata.name,TARGET:$target.kind,APP:$target.name,OWNER:.metadata.ownerReferences[*].kind" |
    awk -v app="$app" -v own="$scaler" -v namespace="$NAMESPACE" '
      $2 != own && $3 ~ /^(Deployment|SpinApp|<none>)$/ && $4 == app && $5 !~ /ScaledObject/ {
        type = $1 == "ScaledObject" ? "scaledobject" : "hpa"
        print "  kubectl delete " type "/" $2 " --namespace " namespace
      }'
}

[[ ${BASH_SOURCE[0]} != "$0" ]] || "$@"
