# Two commands matter: `make demo` shows the main job, `make test` passes everything. `make help` lists the rest.
# Every recipe says what it does before it does it; whatever a machine needs is installed by `make setup`.

CARGO_TARGET_DIR ?= $(CURDIR)/target
export CARGO_TARGET_DIR
HOST   := $(shell rustc -vV | sed -n 's/^host: //p')
PLUGIN := $(CARGO_TARGET_DIR)/$(HOST)/plugin/eni-cni
IPAMD  := $(CARGO_TARGET_DIR)/debug/ipamd
DEMO   := $(CARGO_TARGET_DIR)/debug/demo
CLOUD  ?= sim
SAY    := @printf '\n== %s\n'

.PHONY: help demo test bench soak fuzz checklist setup setup-ship lint unit build plugin simulate charts terraform release size clean

help: ## Lists the targets.
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

demo: setup build plugin ## Two nodes, 80 pods, pings, a table, and nothing left. CLOUD=localstack, KEEP=1.
	$(SAY) "demo on $(CLOUD): two nodes, 80 pods"
	@$(CARGO_TARGET_DIR)/debug/demo --cloud $(CLOUD) $(if $(KEEP),--keep) --ipamd $(IPAMD) --plugin $(PLUGIN)

test: setup lint build plugin charts terraform unit ## Everything that CI runs.
	@$(MAKE) --no-print-directory demo
	@$(MAKE) --no-print-directory demo CLOUD=localstack
	$(SAY) "all passed"

unit: plugin
	$(SAY) "tests of all crates (kernel tests run in network namespaces of their own)"
	E2E_PLUGIN=$(abspath $(PLUGIN)) cargo test --workspace --no-fail-fast

lint:
	$(SAY) "formatting, lints"
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

build:
	$(SAY) "building (the first build compiles aws-sdk-ec2: about 10 minutes on 2 cores)"
	cargo build --workspace --all-targets

# Static, because a plugin that is started for every pod should not spend its time in the dynamic linker.
plugin:
	$(SAY) "building the CNI plugin: static, optimised for size"
	RUSTFLAGS="-C target-feature=+crt-static" cargo build --profile plugin -p eni-cni --target $(HOST)

charts: setup-ship ## The Helm chart: lint, schemas of six versions of Kubernetes, golden files, policies. WRITE=1 renews the golden files.
	$(SAY) "the Helm chart"
	@test/ship/charts.sh $(if $(WRITE),--write) $(if $(wildcard $(IPAMD)),--ipamd $(IPAMD))

terraform: setup setup-ship ## The Terraform modules: format, docs, tests, policies; applied on LocalStack and moto, and destroyed. WRITE=1 renews the docs.
	$(SAY) "the Terraform modules (about 4 minutes)"
	@test/ship/terraform.sh $(if $(WRITE),--write) $(if $(wildcard $(DEMO)),--demo $(DEMO) --ipamd $(IPAMD) --plugin $(PLUGIN))

release: setup-ship ## Static programs, image, chart, bill of materials, checksums, signature in target/dist. ARM64=1: for arm64 too. VERIFY=1 builds twice.
	$(SAY) "building the release (the first time: about 20 minutes on 2 cores$(if $(ARM64), for each architecture))"
	@test/ship/release.sh $(if $(VERIFY),--verify) $(if $(ARM64),--arm64) $(PROGRAMS)

setup-ship:
	@test/ship/setup.sh

bench: setup plugin ## Measures against the floor; writes target/bench/report.json and forward.svg. IPAMD=target/dist/amd64/ipamd: the daemon as shipped.
	$(SAY) "building the daemon for speed (the first time: about 20 minutes on 2 cores)"
	cargo build --release -p e2e $(if $(IPAMD),,-p ipamd)
	$(SAY) "benchmarks"
	@ulimit -n 8192; $(CARGO_TARGET_DIR)/release/bench --ipamd $(or $(IPAMD),$(CARGO_TARGET_DIR)/release/ipamd) --plugin $(PLUGIN) --report target/bench/report.json

simulate: ## A cluster in virtual time. NODES=150 PODS=10 SEED=1 TRACE=start INSTANCE=m5.xlarge MANAGER=eni,aws-eni PLOT=file.svg OUTPUT=json.
	$(SAY) "building the simulation"
	cargo build --release -p simulate
	$(SAY) "simulating: trace $(or $(TRACE),start), seed $(or $(SEED),1)"
	@$(CARGO_TARGET_DIR)/release/simulate --trace $(or $(TRACE),start) --seed $(or $(SEED),1) $(if $(NODES),--nodes $(NODES)) $(if $(PODS),--pods $(PODS)) $(if $(INSTANCE),--instance $(INSTANCE)) $(if $(MANAGER),--manager $(MANAGER)) $(if $(PLOT),--plot $(PLOT)) $(if $(OUTPUT),--output $(OUTPUT))

SOAK_MINUTES ?= 20
SOAK_SEEDS ?= 100000
soak: setup plugin ## Long runs: 100 restarts of the daemon under load; 100,000 nodes in virtual time; a network that somebody breaks; 20 minutes of a storm at EC2.
	$(SAY) "building the daemon for speed (the first time: about 20 minutes on 2 cores)"
	cargo build --release -p ipamd
	$(SAY) "100 restarts in 60 s under 50 ADDs and 50 DELs a second"
	SOAK=1 E2E_IPAMD=$(CARGO_TARGET_DIR)/release/ipamd E2E_PLUGIN=$(PLUGIN) cargo test -p e2e --test restarts -- --nocapture
	$(SAY) "$(SOAK_SEEDS) nodes that live through faults, crashes and restarts, in virtual time"
	SOAK_SEEDS=$(SOAK_SEEDS) cargo test --release -p ipam-core --test model -- --nocapture every_promise
	$(SAY) "60 s of somebody who breaks the node's network under traffic"
	CHAOS_SECONDS=60 cargo test -p lab --test flows chaos -- --nocapture
	$(SAY) "100000 pods come and go beside 500 foreign link events a second"
	WIRINGS=$(or $(WIRINGS),100000) cargo test -p eni-datapath --test churn -- --nocapture
	$(SAY) "$(SOAK_MINUTES) minutes of a storm between two nodes and EC2"
	SOAK_MINUTES=$(SOAK_MINUTES) E2E_IPAMD=$(CARGO_TARGET_DIR)/release/ipamd E2E_PLUGIN=$(PLUGIN) cargo test -p e2e --test soak -- --nocapture

checklist: ## The CNI contract rule by rule: which tests hold it, and their results.
	$(SAY) "the plugin's tests"
	@cni-plugin/checklist.sh

FUZZ_EXECUTIONS ?= 20000
fuzz: plugin ## Long fuzzing of what plugin and daemon read, and kill -9 before each system call of the plugin and of a migration.
	$(SAY) "$(FUZZ_EXECUTIONS) requests to the plugin that nobody should send"
	FUZZ_EXECUTIONS=$(FUZZ_EXECUTIONS) FUZZ_READS=$$(($(FUZZ_EXECUTIONS) * 100)) cargo test -p eni-cni -- --nocapture whatever_the_input no_input_makes
	cargo build -p ipamd
	$(SAY) "ten times as many gRPC messages to the daemon that nobody should send"
	FUZZ_EXECUTIONS=$$(($(FUZZ_EXECUTIONS) * 10)) E2E_PLUGIN=$(abspath $(PLUGIN)) cargo test -p e2e --test grpc -- --nocapture
	$(SAY) "kill -9 before every system call of ADD, DEL and GC"
	EVERY_SYSCALL=1 cargo test -p eni-cni --test kill -- --nocapture
	$(SAY) "kill -9 before every system call of a migration there and back (about an hour)"
	EVERY_SYSCALL=1 E2E_PLUGIN=$(abspath $(PLUGIN)) cargo test -p e2e --test migrate -- --nocapture any_of_its

size: plugin
	cargo build --release -p ipamd
	@ls -l $(PLUGIN) $(CARGO_TARGET_DIR)/release/ipamd

setup: ## Installs what a Debian machine needs: packages, and LocalStack in a virtual environment.
	@test/setup.sh

clean:
	cargo clean
	rm -rf target/venv-* target/providers target/localstack target/bench
