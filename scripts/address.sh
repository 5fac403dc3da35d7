#!/usr/bin/env bash
# Says how to reach the app that was deployed: scripts/address.sh NAMESPACE APP K3D_CONTEXT K3D_URL
set -euo pipefail

namespace=$1 app=$2 k3d_context=$3 k3d_url=$4

if [[ $(kubectl config current-context) == "$k3d_context" ]]; then
  curl --fail --silent --show-error --output /dev/null --max-time 5 --retry 30 --retry-delay 2 --retry-all-errors "$k3d_url/?iterations=0"
  echo "The app answers: $k3d_url"
  exit
fi

of_ingress() { kubectl get ingress "$app" --namespace "$namespace" --output "jsonpath=$1"; }
address=$(of_ingress "{.status.loadBalancer.ingress[0]['hostname','ip']}")
if [[ -n $address ]]; then
  url=http://${address%% *}
  echo "The app's Ingress is $url: curl $url, make load URL=$url"
  exit
fi

class=$(of_ingress '{.spec.ingressClassName}')
if [[ -n $class ]]; then
  cat <<END
The Ingress, of class $class, has no address:
  It may come:     kubectl get ingress $app --namespace $namespace --watch
  Until then, and where the controller never gives one, ask the controller's own Service, by its
  external address or its node port:
                   kubectl get services --all-namespaces
                   make load URL=http://…
END
else
  cat <<END
The Ingress has no class, and the cluster no default one, so nothing serves it: install an Ingress
controller, or set ingressClassName in config/samples/ingress.yaml (kubectl get ingressclasses).
END
fi
cat <<END
  For a look only: kubectl port-forward service/$app 8081:80 --namespace $namespace
                   curl http://localhost:8081
END
