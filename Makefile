# The commands of a working day. CONTRIBUTING.md explains them.
.PHONY: build check fmt lint unit

build:
	cargo build --release --workspace

check: fmt lint unit

fmt:
	cargo fmt --all --check

lint:
	cargo clippy --workspace --all-targets --all-features -- -D warnings

unit:
	cargo nextest run --workspace --lib --bins
