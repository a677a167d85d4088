# The commands of this repository. `make quickstart` and `make test` work on a fresh Debian machine with a Rust toolchain.

.PHONY: quickstart test check bench fmt setup setup-test image help
.DEFAULT_GOAL := help

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

quickstart: setup ## count the words of this repository (or of ARGS="PATH...") through broker, stream and listener
	cargo run --release -p klamm-examples --bin quickstart -- $(ARGS)

test: setup-test ## every test: units, end to end, foreign clients, crashes, bad input, examples
	cargo build -p klamm-cli
	cargo test --workspace --all-features --no-fail-fast

check: setup ## formatting, lints, docs and dependency policy
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --all-features -- -D warnings
	cargo check -p klamm --no-default-features
	cargo check -p klamm
	cargo check -p klamm --features streams-core
	RUSTDOCFLAGS="-D warnings" cargo doc --workspace --all-features --no-deps
	scripts/check-dependencies

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
