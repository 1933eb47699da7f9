# Every target is one command. The scripts in scripts/ have the details. `make help` lists the targets.
SHELL := /bin/bash
.DELETE_ON_ERROR:

# as in scripts/lib.sh
export CGO_ENABLED := 0
export GOFLAGS ?= -trimpath

VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
GOFLAGS_BUILD := -buildvcs=false -trimpath -ldflags '-s -w -X github.com/istio-pod-network/controller/internal/buildinfo.version=$(VERSION)'

, := ,

.PHONY: help
help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## /{printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build the static, stripped programs into bin/
	go build $(GOFLAGS_BUILD) -o bin/ ./plugin/... ./agent/... ./install/...

.PHONY: demo
demo: ## show the main job on real packets (root); options: BACKEND= MODE= FAMILIES= DNS=1 NO_COLOR=1
	@scripts/demo.sh $(if $(BACKEND),--backend $(BACKEND)) $(if $(MODE),--mode $(MODE)) \
		$(if $(FAMILIES),--families $(FAMILIES)) $(if $(DNS),--dns=$(DNS)) $(if $(NO_COLOR),--no-color)

.PHONY: test
test: ## all tests, on real network namespaces and packets (root); options: PART=traffic or others
	@PART=$(PART) scripts/test.sh

.PHONY: e2e
e2e: ## the end-to-end tests, on a real Kubernetes cluster of their own (root); options: RUN=TestName SHUFFLE=on FAULTS=all SEED=1 CLUSTERS=3 ROWS=write PODS=250
	@SHUFFLE=$(SHUFFLE) PODS=$(PODS) FAULTS=$(FAULTS) SEED=$(SEED) CLUSTERS=$(CLUSTERS) ROWS=$(ROWS) \
		scripts/e2e.sh $(if $(RUN),-run '$(RUN)')

.PHONY: soak
soak: ## for long: pods of all kinds come and go under all faults, and every parser is fuzzed (root); options: SOAK=1h SEED=1, or SANDBOXES=10000
	@SEED=$(SEED) SANDBOXES=$(SANDBOXES) scripts/soak.sh $(SOAK)

.PHONY: kernels
kernels: ## rules, plugin and wait on other kernels, booted in software; options: KERNELS="5.10 6.1 6.12 newest arm64" SHORT=1
	@scripts/kernels.sh $(if $(SHORT),--short) $(KERNELS)

.PHONY: cluster
cluster: ## bring up that cluster for a person, and say how to use it (root); scripts/cluster.sh load gives its nodes images
	@scripts/cluster.sh up

.PHONY: cluster-down
cluster-down: ## take it down
	@scripts/cluster.sh down

.PHONY: mesh
mesh: ## bring up that cluster with Istio and a small shop in it, show a person that the mesh works, and how (root); options: ENVOY=/path or an image
	@scripts/mesh.sh up

.PHONY: mesh-down
mesh-down: ## take it down
	@scripts/mesh.sh down

.PHONY: compare
compare: ## measure this beside istio-init and Istio CNI, with real Istio, for up to 90 minutes; a run that was ended goes on (root); options: QUICK=1 SEED=1 DOCS=1
	@scripts/compare.sh $(if $(QUICK),-quick) $(if $(SEED),-seed $(SEED)) $(if $(DOCS),-docs)

.PHONY: images
images: ## build the container images into dist/images; options: IMAGES='--platform linux/amd64,linux/arm64 --push REGISTRY'
	@scripts/images.sh $(IMAGES)

# VERSION counts only if it is on the command line. Otherwise the version is the chart's
released := $(if $(filter command line,$(origin VERSION)),--version $(VERSION))

.PHONY: release
release: ## make all files of a release of this commit in dist/release, signed if COSIGN_PRIVATE_KEY is set; options: VERSION=1.2.3 PUSH=registry, and TOOL=linux/amd64 for a trial
	@scripts/release.sh build $(released) $(if $(TOOL),--tool-platform $(TOOL))
	@$(if $(PUSH),scripts/release.sh push --registry $(PUSH) $(released))

.PHONY: release-check
release-check: ## verify that, make it again from a fresh clone, and compare every byte; options: VERSION=1.2.3 KEY=cosign.pub
	@scripts/release.sh check $(released) $(if $(KEY),--key $(KEY))

.PHONY: bench
bench: ## measure ADD and DEL against a plugin that only echoes, the agent, and the pure core (root); options: N=60 BURSTS=16,64,256 IDLE=5m
	go -C conformance run ./bench/plugin $(if $(N),-n $(N)) $(if $(BURSTS),-bursts $(BURSTS))
	go -C conformance run ./bench/agent $(if $(N),-n $(N)) $(if $(IDLE),-idle $(IDLE))
	go test -run '^$$' -bench . -benchmem ./plugin/redirect

.PHONY: scale
scale: ## measure what the agents of many nodes cost an API server, and how that grows; a run that was ended goes on (root); options: NODES=25,50,100,200 SHORT=1 SELECTION=annotated DOCS=1
	go -C conformance run ./scale $(if $(SHORT),-nodes 5$(,)10 -churn 60 -idle 5s -state=) $(if $(NODES),-nodes $(NODES)) $(if $(SELECTION),-selection $(SELECTION)) $(if $(DOCS),-docs)

.PHONY: fuzz
fuzz: ## run every fuzz target; options: FUZZTIME=10s or 3000x TARGETS=FuzzTraffic, or PACKETS=100000 SEED=1 (root)
	@PACKETS=$(PACKETS) SEED=$(SEED) scripts/fuzz.sh $(FUZZTIME)

.PHONY: pictures
pictures: ## draw the pictures in docs/pictures, and write the golden tables of packets' ways, anew
	go test ./plugin/trace -run 'TestPictures|TestTables' -update
	go test ./docs -run TestDiagrams -update

.PHONY: site
site: ## make the documentation a static site, in dist/site
	@scripts/site.sh

.PHONY: chart-docs
chart-docs: ## write the table in the chart's README and the schema's descriptions anew, of the comments in values.yaml
	go -C conformance test ./internal/chartdocs -update

.PHONY: lint
lint: ## gofmt, go vet, golangci-lint, shellcheck, yamllint, actionlint
	@scripts/lint.sh

.PHONY: update
update: ## move to their newest versions: all modules but Istio, Go's patch release, what checks the tree, the site's makers, Envoy, the workflows' actions; options: MODULES=scripts/images
	@scripts/update.sh $(MODULES)

.PHONY: vulncheck
vulncheck: ## look for known vulnerabilities in what the programs call, where the database can be reached
	@scripts/vulncheck.sh

.PHONY: clean
clean: ## remove what the build made
	rm -rf bin dist
