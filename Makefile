# cpu-load-gen: everything that one does with it. `make` alone lists it.

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Where `make run` listens.
LISTEN ?= 127.0.0.1:3000
# The Spin to use; on a machine without it, `make run` serves with the embedded host.
SPIN ?= spin

# What `make cluster` installs. The test tests/manifests.rs holds the README to these.
K3D_IMAGE             := ghcr.io/spinframework/containerd-shim-spin/k3d:v0.24.0
CERT_MANAGER_VERSION  := v1.20.0
SPIN_OPERATOR_VERSION := 0.6.1
KEDA_VERSION          := 2.20.2

# The app: a tag or a digest (name@sha256:…), where it runs, and what scales it (keda or hpa).
IMAGE      ?= ttl.sh/cpu-load-gen:1h
NAMESPACE  ?= default
AUTOSCALER ?= keda

# The k3d cluster: its name, the port of its load balancer on this machine, and further flags for `k3d cluster create`.
# These and the following are for the command line only: names such as PORT may mean something else in an environment.
CLUSTER    := wasm-cluster-scale
PORT       := 8081
K3D_FLAGS  :=
PUSH_FLAGS :=

# The load.
URL         := http://localhost:$(PORT)
CONNECTIONS := 40
TIMEOUT     := 5s
DURATION    := 3m

TARGET := wasm32-wasip1
SPIN_INSTALL := https://spinframework.dev/install
RUSTUP_INSTALL := https://rustup.rs

# $(call need,TOOL,HOW TO GET IT): ends with one line where a tool is missing.
need = command -v $(1) >/dev/null || { echo "make: $(1) is not installed: $(2)" >&2; exit 1; }

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: setup
setup:
	@$(call need,rustup,$(RUSTUP_INSTALL))
	@rustup target list --installed | grep -x $(TARGET) >/dev/null || rustup target add $(TARGET)

.PHONY: build
build: setup ## Build the component
	@cargo build --target $(TARGET) --release

# The host with the features of the whole workspace, so that tests find most of Wasmtime built.
.PHONY: run
run: build ## Serve it on http://127.0.0.1:3000 (LISTEN=…)
	@if command -v $(SPIN) >/dev/null; then \
		exec $(SPIN) up --listen $(LISTEN) --runtime-config-file runtime-config.toml; \
	else \
		echo "Spin is not installed ($(SPIN_INSTALL)): serving with the embedded host, without runtime-config.toml"; \
		cargo build --workspace --bin host && exec target/debug/host --listen $(LISTEN); \
	fi

.PHONY: test
test: build ## Run all tests; the built component runs in the embedded host
	@env -u SPIN cargo test --workspace

.PHONY: need-spin
need-spin:
	@$(call need,$(SPIN),$(SPIN_INSTALL))

.PHONY: test-spin
test-spin: need-spin build ## Run the tests over HTTP against a real Spin (SPIN=path)
	@SPIN=$(SPIN) cargo test --test http --test abandon

.PHONY: bench
bench: setup ## Measure what the README claims (ROWS=accuracy,pacing SPIN=path), in about ten minutes
	@cargo run --quiet -p bench -- $(if $(ROWS),--rows $(ROWS))

.PHONY: lint
lint: setup ## Check the format and the code, warnings denied
	@cargo fmt --all --check
	@cargo clippy --workspace --all-targets -- -D warnings
	@cargo clippy --target $(TARGET) -p cpu-load-gen -p hello -p fib -- -D warnings

.PHONY: clean
clean: ## Remove all that was built
	@cargo clean

# On Kubernetes.

.PHONY: push
push: need-spin build ## Push the app to IMAGE, and print its digest (PUSH_FLAGS=--insecure for a registry without TLS)
	@pushed=$$($(SPIN) registry push $(PUSH_FLAGS) '$(IMAGE)'); echo "$$pushed"; \
	digest=$$(grep -o 'sha256:[0-9a-f]\{64\}' <<<"$$pushed") || { echo 'make: the registry returned no digest' >&2; exit 1; }; \
	echo "To deploy exactly this: make deploy IMAGE=$$(sed 's/@.*//; s/:[^:/]*$$//' <<<'$(IMAGE)')@$$digest"

K3D_CONTEXT   := k3d-$(CLUSTER)
CLUSTER_LABEL := cpu-load-gen.cluster
OPERATOR_URL  := https://github.com/spinframework/spin-operator/releases/download/v$(SPIN_OPERATOR_VERSION)
SAMPLES       := config/samples
APP           := keda-spinapp
SCALER        := cpu-scaling

need_kubectl = $(call need,kubectl,https://kubernetes.io/docs/tasks/tools/ (1.31 or newer))
need_k3d = $(call need,k3d,https://k3d.io)
# Everything in the current context is done through this; each such target begins with show_context.
kubectl = kubectl --namespace '$(NAMESPACE)'
show_context = context=$$(kubectl config current-context 2>/dev/null) || { echo 'make: kubectl has no current context: run `make cluster`, or choose one with `kubectl config use-context`' >&2; exit 1; }; \
	echo "Context $$context, namespace $(NAMESPACE)"
# Whether the cluster knows ScaledObjects at all.
has_keda = [ -n "$$(kubectl api-resources --api-group=keda.sh --output=name)" ]
# The containers of the cluster: those that `make cluster` labelled as its own, and all that k3d has under this name.
own_nodes = docker ps --quiet --filter label=$(CLUSTER_LABEL)=$(CLUSTER)
all_nodes = docker ps --quiet --filter label=k3d.cluster=$(CLUSTER)
not_our_cluster = { echo 'make: the k3d cluster $(CLUSTER) was not made by `make cluster`: choose another name with CLUSTER=…, or delete it yourself (k3d cluster delete $(CLUSTER))' >&2; exit 1; }

# $(call helm_install,RELEASE,CHART,VERSION,MORE FLAGS): into a namespace of its own; left alone where this version is there already.
helm_install = if helm list --kube-context $(K3D_CONTEXT) --namespace $(1) --deployed --output json | grep -q '"chart":"$(1)-$(3)"'; \
	then echo "$(1) $(3) is installed"; \
	else helm upgrade --install $(1) $(2) --version $(3) --kube-context $(K3D_CONTEXT) --namespace $(1) --create-namespace --wait --timeout 5m $(4); fi

.PHONY: cluster
cluster: ## Make the k3d cluster with SpinKube and KEDA, or complete it
	@$(call need,docker,https://docs.docker.com/engine/install/)
	@$(need_k3d)
	@$(need_kubectl)
	@$(call need,helm,https://helm.sh/docs/intro/install/)
	@echo 'Cluster $(CLUSTER), context $(K3D_CONTEXT), namespace $(NAMESPACE)'
	@own=$$($(own_nodes) --all); any=$$($(all_nodes) --all); running=$$($(own_nodes)); \
	if [ -z "$$any" ]; then \
		k3d cluster create '$(CLUSTER)' --image $(K3D_IMAGE) --port '$(PORT):80@loadbalancer' --agents 2 \
			--runtime-label '$(CLUSTER_LABEL)=$(CLUSTER)@server:0' $(K3D_FLAGS); \
	elif [ -z "$$own" ]; then $(not_our_cluster); \
	elif [ -z "$$running" ]; then k3d cluster start '$(CLUSTER)'; \
	else echo 'k3d cluster $(CLUSTER) is running'; fi
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

.PHONY: deploy
deploy: ## Deploy IMAGE with its autoscaler and Ingress in the current context, and wait until it is ready
	@$(need_kubectl)
	@[[ '$(AUTOSCALER)' =~ ^(keda|hpa)$$ ]] || { echo "make: AUTOSCALER is '$(AUTOSCALER)'; it must be keda or hpa" >&2; exit 1; }
	@$(show_context)
	@[ '$(AUTOSCALER)' = hpa ] || $(has_keda) || { echo 'make: this cluster has no KEDA: install it, or use AUTOSCALER=hpa' >&2; exit 1; }
	@$(kubectl) get spinappexecutor containerd-shim-spin >/dev/null || { echo 'make: namespace $(NAMESPACE) needs the executor containerd-shim-spin: kubectl apply --namespace $(NAMESPACE) -f $(OPERATOR_URL)/spin-operator.shim-executor.yaml' >&2; exit 1; }
	kubectl patch --local -f $(SAMPLES)/keda-app.yaml --type merge --patch '{"spec":{"image":"$(IMAGE)"}}' --output yaml | $(kubectl) apply -f -
	@# The operator makes the Deployment a moment later, and on a second deploy changes it a moment later: wait for this
	@# image before its rollout. KEDA's webhook refuses a ScaledObject whose Deployment is not there.
	$(kubectl) wait --for=create deployment/$(APP) --timeout=60s
	$(kubectl) wait --for=jsonpath='{.spec.template.spec.containers[0].image}'='$(IMAGE)' deployment/$(APP) --timeout=60s
	$(kubectl) rollout status deployment/$(APP) --timeout=3m
	$(autoscale_with_$(AUTOSCALER))
	$(kubectl) apply -f $(SAMPLES)/ingress.yaml
	@if [ "$$(kubectl config current-context)" = $(K3D_CONTEXT) ]; then \
		curl --fail --silent --show-error --output /dev/null --max-time 5 --retry 30 --retry-delay 2 --retry-all-errors '$(URL)/?iterations=0'; \
		echo 'The app answers: $(URL)'; \
	else \
		address=$$($(kubectl) get ingress $(APP) --output jsonpath='{.status.loadBalancer.ingress[0].ip}{.status.loadBalancer.ingress[0].hostname}'); \
		if [ -n "$$address" ]; then echo "The app's Ingress: http://$$address"; \
		else echo 'The Ingress has no address yet: kubectl get ingress --namespace $(NAMESPACE) $(APP) --watch'; fi; \
	fi

.PHONY: load
load: ## Load the app: CONNECTIONS at once for DURATION
	@$(call need,bombardier,go install github.com/codesenberg/bombardier@latest)
	@curl --silent --show-error --output /dev/null --max-time 30 '$(URL)' || { echo 'make: $(URL) does not answer: run make deploy, or give another URL=' >&2; exit 1; }
	bombardier -c $(CONNECTIONS) -t $(TIMEOUT) -d $(DURATION) $(URL)

.PHONY: undeploy
undeploy: ## Take the app, its autoscaler and its Ingress away from the current context
	@$(need_kubectl)
	@$(show_context)
	@if $(has_keda); then $(kubectl) delete --ignore-not-found -f $(SAMPLES)/keda-scaledobject.yaml; fi
	@$(kubectl) delete --ignore-not-found -f $(SAMPLES)/hpa.yaml -f $(SAMPLES)/ingress.yaml -f $(SAMPLES)/keda-app.yaml
	@$(kubectl) wait --for=delete deployment/$(APP) --timeout=2m
	@$(kubectl) wait --for=delete hpa/keda-hpa-$(SCALER) --timeout=1m

.PHONY: cluster-delete
cluster-delete: ## Delete the k3d cluster that `make cluster` made
	@$(need_k3d)
	@$(call need,docker,https://docs.docker.com/engine/install/)
	@echo 'Cluster $(CLUSTER), context $(K3D_CONTEXT)'
	@own=$$($(own_nodes) --all); any=$$($(all_nodes) --all); \
	if [ -z "$$any" ]; then echo 'There is no such k3d cluster'; \
	elif [ -z "$$own" ]; then $(not_our_cluster); \
	else k3d cluster delete '$(CLUSTER)'; fi

include autoscale.mk
