# The commands of this repository. `make quickstart` and `make test` work on a fresh Debian machine with a Rust toolchain.

.PHONY: quickstart test soak mutants fresh-machine check bench fmt setup setup-test image help
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

quickstart: setup ## count the words of this repository (or of ARGS="PATH...") through broker, stream and listener
	@cargo run --profile quickstart -p klamm-examples --bin quickstart -- $(ARGS)

test: setup-test ## every test: units, end to end, foreign clients, crashes, bad input, examples
	@scripts/test

soak: setup-test ## the long suites in full (SUITE=crash ROUNDS=500, or all; without SUITE a list)
	@scripts/soak $(SUITE) $(ROUNDS)

mutants: setup ## the pure cores changed in small ways: do their tests notice? (CORE=ledger; without it all)
	@scripts/mutants $(if $(CORE),"$(CORE)")

fresh-machine: ## quickstart and tests in an empty Debian with nothing but Rust and make
	@scripts/fresh-machine quickstart
	@scripts/fresh-machine test

check: setup ## formatting, lints, docs, dependency policy and the scripts' own tests
	scripts/tests
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo check -p klamm --no-default-features
	cargo check -p klamm
	cargo check -p klamm --features streams-core
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
	scripts/check-dependencies
	scripts/check-rust-version

bench: setup ## micro benchmarks, then the same load on Klamm and on Apache Kafka
	bench/peers/run $(ARGS)

image: setup ## the container image: a static binary on an empty base
	scripts/image

fmt: ## format everything
	cargo fmt --all

setup:
	@scripts/setup build

setup-test:
	@scripts/setup test
