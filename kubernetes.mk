# What one does with a cluster: make one, push the app, deploy it, load it, take it all away.

# What `make cluster` installs. The tests hold docs/kubernetes.md to these.
K3D_IMAGE             := ghcr.io/spinframework/containerd-shim-spin/k3d:v0.24.0
CERT_MANAGER_VERSION  := v1.20.0
SPIN_OPERATOR_VERSION := 0.6.1
KEDA_VERSION          := 2.20.2

# The app: a tag or a digest (name@sha256:…), where it runs, and what scales it (keda or hpa).
IMAGE      ?= ttl.sh/cpu-load-gen:1h
NAMESPACE  ?= default
AUTOSCALER ?= keda

# A file such as runtime-config.toml that every replica reads; empty: none.
# This and the following are for the command line only: names such as PORT may mean something else in an environment.
RUNTIME_CONFIG :=

# The k3d cluster: its name, the port of its load balancer on this machine, and further flags for `k3d cluster create`.
CLUSTER    := wasm-cluster-scale
PORT       := 8081
K3D_FLAGS  :=
PUSH_FLAGS :=

# The load.
URL         := http://localhost:$(PORT)
CONNECTIONS := 40
TIMEOUT     := 5s
DURATION    := 3m

K3D_CONTEXT  := k3d-$(CLUSTER)
OPERATOR_URL := https://github.com/spinframework/spin-operator/releases/download/v$(SPIN_OPERATOR_VERSION)
SAMPLES      := config/samples
APP          := keda-spinapp
SCALER       := cpu-scaling
# On the Deployment: when it was last deployed. On each Secret with a runtime config: whose it is.
DEPLOYED     := cpu-load-gen/deployed
NOW          := $(shell date +%s)
CONFIG_LABEL := cpu-load-gen/runtime-config=$(APP)

DOCKER_INSTALL     := https://docs.docker.com/engine/install/
HELM_INSTALL       := https://helm.sh/docs/intro/install/
K3D_INSTALL        := https://k3d.io
KUBECTL_INSTALL    := https://kubernetes.io/docs/tasks/tools/ (1.31 or newer)
BOMBARDIER_INSTALL := go install github.com/codesenberg/bombardier@latest

need_kubectl = $(call need,kubectl,$(KUBECTL_INSTALL))
# Everything in the current context is done through this; each such target begins with show_context.
kubectl = kubectl --namespace '$(NAMESPACE)'
show_context = context=$$(kubectl config current-context 2>/dev/null) || { echo 'make: kubectl has no current context: run `make cluster`, or choose one with `kubectl config use-context`' >&2; exit 1; }; \
	echo "Context $$context, namespace $(NAMESPACE)"
# Whether the cluster knows ScaledObjects at all.
has_keda = [ -n "$$(kubectl api-resources --api-group=keda.sh --output=name)" ]

# $(call helm_install,RELEASE,CHART,VERSION,MORE FLAGS): into a namespace of its own; left alone where this version is there already.
helm_install = if helm list --kube-context $(K3D_CONTEXT) --namespace $(1) --deployed --output json | grep -q '"chart":"$(1)-$(3)"'; \
	then echo "$(1) $(3) is installed"; \
	else helm upgrade --install $(1) $(2) --version $(3) --kube-context $(K3D_CONTEXT) --namespace $(1) --create-namespace --wait --timeout 5m $(4); fi

.PHONY: cluster
cluster: ## Make the k3d cluster with SpinKube and KEDA, or complete it
	@$(call need,docker,$(DOCKER_INSTALL))
	@$(call need,k3d,$(K3D_INSTALL))
	@$(need_kubectl)
	@$(call need,helm,$(HELM_INSTALL))
	@echo 'Cluster $(CLUSTER), context $(K3D_CONTEXT), namespace $(NAMESPACE)'
	@scripts/k3d-cluster.sh create '$(CLUSTER)' --image $(K3D_IMAGE) --port '$(PORT):80@loadbalancer' --agents 2 $(K3D_FLAGS)
	@$(call helm_install,cert-manager,oci://quay.io/jetstack/charts/cert-manager,$(CERT_MANAGER_VERSION),--set crds.enabled=true)
	kubectl --context $(K3D_CONTEXT) apply -f $(OPERATOR_URL)/spin-operator.runtime-class.yaml
	kubectl --context $(K3D_CONTEXT) apply -f $(OPERATOR_URL)/spin-operator.crds.yaml
	@$(call helm_install,spin-operator,oci://ghcr.io/spinframework/charts/spin-operator,$(SPIN_OPERATOR_VERSION))
	@kubectl --context $(K3D_CONTEXT) get namespace '$(NAMESPACE)' >/dev/null 2>&1 || kubectl --context $(K3D_CONTEXT) create namespace '$(NAMESPACE)'
	@# The operator's webhook judges this, and its certificate may arrive a moment after the operator.
	@tries=0; until kubectl --context $(K3D_CONTEXT) apply --namespace '$(NAMESPACE)' -f $(OPERATOR_URL)/spin-operator.shim-executor.yaml; \
	do tries=$$((tries + 1)); [ $$tries -lt 12 ] || exit 1; sleep 5; done
	@$(call helm_install,keda,keda,$(KEDA_VERSION),--repo https://kedacore.github.io/charts)
	@kubectl config use-context $(K3D_CONTEXT)

.PHONY: push
push: need-spin build ## Push the app to IMAGE, and print its digest (PUSH_FLAGS=--insecure for a registry without TLS)
	@scripts/push.sh $(SPIN) '$(IMAGE)' $(PUSH_FLAGS)

# Two autoscalers of one Deployment would fight, and KEDA refuses to be the second: each takes the other away first.
# An HPA is ScalingActive once it has read a metric; until then nothing can scale.
define autoscale_with_keda
	$(kubectl) delete --ignore-not-found -f $(SAMPLES)/hpa.yaml
	$(kubectl) apply -f $(SAMPLES)/keda-scaledobject.yaml
	$(kubectl) wait --for=condition=Ready scaledobject/$(SCALER) --timeout=2m
	$(kubectl) wait --for=create hpa/keda-hpa-$(SCALER) --timeout=60s
	$(kubectl) wait --for=condition=ScalingActive hpa/keda-hpa-$(SCALER) --timeout=5m
endef
define autoscale_with_hpa
	@if $(has_keda); then $(kubectl) delete --ignore-not-found -f $(SAMPLES)/keda-scaledobject.yaml; fi
	$(kubectl) wait --for=delete hpa/keda-hpa-$(SCALER) --timeout=60s
	$(kubectl) apply -f $(SAMPLES)/hpa.yaml
	$(kubectl) wait --for=condition=ScalingActive hpa/$(SCALER) --timeout=5m
endef

runtime_configs = $(kubectl) get secrets --selector $(CONFIG_LABEL) --output name
with_runtime_config = $(if $(RUNTIME_CONFIG),| scripts/with-runtime-config.sh '$(RUNTIME_CONFIG)' '$(NAMESPACE)' $(APP) $(CONFIG_LABEL))

.PHONY: deploy
deploy: ## Deploy IMAGE with its autoscaler and Ingress in the current context, and wait until it is ready
	@$(need_kubectl)
	@[[ '$(AUTOSCALER)' =~ ^(keda|hpa)$$ ]] || { echo "make: AUTOSCALER is '$(AUTOSCALER)'; it must be keda or hpa" >&2; exit 1; }
	@[ -z '$(RUNTIME_CONFIG)' ] || [ -r '$(RUNTIME_CONFIG)' ] || { echo "make: RUNTIME_CONFIG is '$(RUNTIME_CONFIG)'; there is no such file" >&2; exit 1; }
	@$(show_context)
	@[ '$(AUTOSCALER)' = hpa ] || $(has_keda) || { echo 'make: this cluster has no KEDA: install it, or use AUTOSCALER=hpa' >&2; exit 1; }
	@$(kubectl) get spinappexecutor containerd-shim-spin >/dev/null || { echo 'make: namespace $(NAMESPACE) needs the executor containerd-shim-spin: kubectl apply --namespace $(NAMESPACE) -f $(OPERATOR_URL)/spin-operator.shim-executor.yaml' >&2; exit 1; }
	kubectl patch --local -f $(SAMPLES)/keda-app.yaml --type merge --patch '{"spec":{"image":"$(IMAGE)","deploymentAnnotations":{"$(DEPLOYED)":"$(NOW)"}}}' --output yaml $(with_runtime_config) | $(kubectl) apply -f -
	@# The operator makes the Deployment a moment later, and changes it a moment after each change of the SpinApp: wait for
	@# what was just applied before its rollout. KEDA's webhook refuses a ScaledObject whose Deployment is not there.
	$(kubectl) wait --for=create deployment/$(APP) --timeout=60s
	$(kubectl) wait --for=jsonpath='{.metadata.annotations.$(DEPLOYED)}'=$(NOW) deployment/$(APP) --timeout=60s
	$(kubectl) rollout status deployment/$(APP) --timeout=3m || { $(kubectl) get pods --selector core.spinkube.dev/app-name=$(APP); exit 1; }
	@# No replica reads an earlier runtime config any more.
	@$(runtime_configs) --field-selector "metadata.name!=$$($(kubectl) get spinapp $(APP) --output jsonpath='{.spec.runtimeConfig.loadFromSecret}')" | xargs -r $(kubectl) delete
	$(autoscale_with_$(AUTOSCALER))
	$(kubectl) apply -f $(SAMPLES)/ingress.yaml
	@scripts/address.sh '$(NAMESPACE)' $(APP) '$(K3D_CONTEXT)' '$(URL)'

.PHONY: load
load: ## Load the app: CONNECTIONS at once for DURATION; fails where anything but 2xx comes back
	@$(call need,bombardier,$(BOMBARDIER_INSTALL))
	@$(call need,curl,https://curl.se)
	scripts/load.sh -c $(CONNECTIONS) -t $(TIMEOUT) -d $(DURATION) $(URL)

.PHONY: undeploy
undeploy: ## Take the app, its autoscaler, its Ingress and its runtime config away from the current context
	@$(need_kubectl)
	@$(show_context)
	@if $(has_keda); then $(kubectl) delete --ignore-not-found -f $(SAMPLES)/keda-scaledobject.yaml; fi
	@$(kubectl) delete --ignore-not-found -f $(SAMPLES)/hpa.yaml -f $(SAMPLES)/ingress.yaml -f $(SAMPLES)/keda-app.yaml
	@$(runtime_configs) | xargs -r $(kubectl) delete
	@$(kubectl) wait --for=delete deployment/$(APP) --timeout=2m
	@$(kubectl) wait --for=delete hpa/keda-hpa-$(SCALER) --timeout=1m

.PHONY: cluster-delete
cluster-delete: ## Delete the k3d cluster that `make cluster` made
	@$(call need,k3d,$(K3D_INSTALL))
	@$(call need,docker,$(DOCKER_INSTALL))
	@echo 'Cluster $(CLUSTER), context $(K3D_CONTEXT)'
	@scripts/k3d-cluster.sh delete '$(CLUSTER)'
