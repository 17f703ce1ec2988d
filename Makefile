# `make dev` starts a whole rollup on this machine, `make test` proves that it works, `make sim` looks for
# what breaks it.
SHELL := /bin/bash
.PHONY: dev build test conformance sim soak bench program ci image

# Options of `kedge dev`, for example ARGS="--l1-block-time 0".
ARGS ?=

dev: build
	@. scripts/env.sh && exec "$$CARGO_TARGET_DIR/release/kedge" dev $(ARGS)

build:
	@scripts/packages
	@. scripts/env.sh && cargo build --locked --release --package kedge

# TESTS goes to the test runner, for example TESTS="-p kedge-bridge".
test:
	@scripts/test $(TESTS)

# Only the tests on conformance vectors, with counts: make conformance KEDGE_VECTORS=DIR.
conformance:
	@KEDGE_VECTORS="$(KEDGE_VECTORS)" scripts/conformance $(TESTS)

# Random runs of several parties: make sim SEEDS=10000, or one with its story: make sim SEED=17.
sim:
	@scripts/packages
	@. scripts/env.sh && SEED=$(SEED) SEEDS=$(SEEDS) FIRST=$(FIRST) \
		cargo run --quiet --locked --release --package kedge-tests --bin sim

# A node under a week's worth of mixed requests, with every answer checked: make soak REQUESTS=20000, and SEED=7
# for another mix.
soak: build
	@. scripts/env.sh && REQUESTS=$(REQUESTS) SEED=$(SEED) \
		cargo run --quiet --locked --release --package kedge-tests --bin soak

# Tables of proof sizes and times, import speed, and JSON-RPC beside anvil, see docs/benchmarks.md: one of them
# with make bench BENCH=rpc.
BENCH ?= proofs import rpc

bench: build
	@scripts/packages test
	@. scripts/env.sh && KEDGE_TOOLS=$$(scripts/tools) \
		cargo bench --locked --package kedge-tests $(addprefix --bench ,$(BENCH))

# Rebuilds the verifier's RISC-V program and compares it with the committed one; ARGS=--update replaces that.
program:
	@scripts/packages test
	@scripts/program $(ARGS)

ci:
	@.ci/run

image:
	docker build --tag kedge .
