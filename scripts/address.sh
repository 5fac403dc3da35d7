#!/usr/bin/env bash
# Prints how to reach the deployed app: at URL in the cluster of `make cluster`, else at the address
# of its Ingress.
. "$(dirname "$0")/lib.sh"

context=$(kubectl config current-context)
if [[ $context == "k3d-$CLUSTER" || $context == "kind-$CLUSTER" ]]; then
  need curl
  echo "Waiting for a response from $URL, for about a minute at most"
  curl --globoff --noproxy '*' --fail --silent --show-error --output /dev/null --max-time 5 --retry 30 --retry-delay 2 \
    --retry-max-time 60 --retry-all-errors "$URL/?iterations=0"
  echo "The app responds: $URL"
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
  To wait for it:  kubectl get ingress $app --namespace $NAMESPACE --watch
  Until then, or if the controller never sets one, use the external address or the node port of the
  controller's own Service:
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
  To try the app:  kubectl port-forward service/$app 8081:80 --namespace $NAMESPACE
                   curl http://localhost:8081
END
