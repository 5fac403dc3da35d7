# What the autoscaler does, recorded, explained and judged: docs/autoscale.md.

# `make watch` ends by itself after FOR=5m.
FOR        :=
# What must come of it: EXPECT=20 WITHIN=3m, or EXPECT=7 HOLD=2m.
EXPECT     :=
WITHIN     :=
HOLD       :=
# How long `make autoscale` waits for as few replicas as before, once the load has ended; UNTIL_IDLE=no: not at all.
UNTIL_IDLE := 15m
# For `make hold`.
REPLICAS   :=
# The folder for replicas.csv, autoscale.json and autoscale.svg.
OUTPUT     := target/autoscale

recorder  = cargo run --locked --package recorder --
recording = --namespace '$(NAMESPACE)' --deployment '$(APP)' --url '$(URL)' --output '$(OUTPUT)'
expecting = $(if $(EXPECT),--expect '$(EXPECT)') $(if $(WITHIN),--within '$(WITHIN)') $(if $(HOLD),--hold '$(HOLD)')
need_bombardier = $(call need,bombardier,$(BOMBARDIER_INSTALL))

.PHONY: watch
watch: ## Follow the scaling until Ctrl-C or FOR=5m, and record it
	@$(need_kubectl)
	@$(show_context)
	@$(recorder) watch $(recording) $(if $(FOR),--for '$(FOR)') $(expecting)

.PHONY: autoscale
autoscale: ## Load the app, record the scaling out and back, and judge it (EXPECT=20 WITHIN=3m)
	@$(need_kubectl)
	@$(need_bombardier)
	@$(show_context)
	@$(recorder) run $(recording) $(if $(filter-out no,$(UNTIL_IDLE)),--until-idle '$(UNTIL_IDLE)') $(expecting) \
		-- bombardier -o json -p r -l -c $(CONNECTIONS) -t $(TIMEOUT) -d $(DURATION) '$(URL)'

.PHONY: hold
hold: ## Load the app such that exactly REPLICAS=7 are wanted, and see that they stay for HOLD=2m
	@$(need_kubectl)
	@$(need_bombardier)
	@[ -n '$(REPLICAS)' ] || { echo 'make: how many replicas? For example: make hold REPLICAS=7' >&2; exit 1; }
	@$(show_context)
	@$(recorder) hold '$(REPLICAS)' $(recording) $(if $(HOLD),--hold '$(HOLD)') $(if $(WITHIN),--within '$(WITHIN)')
