#!/usr/bin/env bash
# The k3d cluster of `make cluster`: scripts/k3d-cluster.sh create|delete NAME [FLAG FOR k3d cluster create…]
# Starts and deletes only what carries the project's label: another cluster of this name is somebody else's.
set -euo pipefail

action=$1 name=$2
label=cpu-load-gen.cluster

any=$(docker ps --quiet --all --filter "label=k3d.cluster=$name")
own=$(docker ps --quiet --all --filter "label=$label=$name")
running=$(docker ps --quiet --filter "label=$label=$name")

if [[ -n $any && -z $own ]]; then
  echo "make: the k3d cluster $name was not made by \`make cluster\`: choose another name with CLUSTER=…, or delete it yourself (k3d cluster delete $name)" >&2
  exit 1
fi

case $action in
  create)
    if [[ -z $any ]]; then
      k3d cluster create "$name" --runtime-label "$label=$name@server:0" "${@:3}"
    elif [[ -z $running ]]; then
      k3d cluster start "$name"
    else
      echo "k3d cluster $name is running"
    fi
    ;;
  delete)
    if [[ -z $any ]]; then
      echo 'There is no such k3d cluster'
    else
      k3d cluster delete "$name"
    fi
    ;;
  *)
    echo "make: scripts/k3d-cluster.sh creates or deletes, not '$action'" >&2
    exit 2
    ;;
esac
