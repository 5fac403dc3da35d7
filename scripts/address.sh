#!/usr/bin/env bash
# Says how to reach the deployed app: at URL in the cluster of `make cluster`, else at the address of its Ingress.
. "$(dirname "$0")/lib.sh"

context=$(kubectl config current-context)
if [[ $context == "k3d-$CLUSTER" || $context == "kind-$CLUSTER" ]]; then
  need curl
  curl --fail --silent --show-error --output /dev/null --max-time 5 --retry 30 --retry-delay 2 --retry-all-errors "$URL/?iterations=0"
  echo "The app answers: $URL"
  exit
fi

of_ingress() { "${kube[@]}" get ingress "$app" --output "jsonpath=$1"; }
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
  It may come:     kubectl get ingress $app --namespace $NAMESPACE --watch
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
  For a look only: kubectl port-forward service/$app 8081:80 --namespace $NAMESPACE
                   curl http://localhost:8081
END
