#!/usr/bin/env bash
# Every test but those on real llama-servers. Says what it does, and stops at the first thing that is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

say "formatting"
cargo fmt --all --check
say "lints"
cargo clippy --workspace --all-targets --all-features -- -D warnings
say "tests: core, gateway over sockets, hostile clients, faults, demo, simulator"
cargo test --workspace --exclude ingle-client --lib --bins --tests
say "tests: client crate, with all of its features"
cargo test -p ingle-client --all-features
say "examples in the documentation"
cargo test --workspace --exclude ingle-client --doc
say "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
if command -v promtool >/dev/null; then
	say "Prometheus rules"
	(cd deploy/prometheus && promtool check rules rules.yml && promtool test rules rules_test.yml)
fi
if command -v cargo-deny >/dev/null; then
	say "licences, bans, sources"
	cargo deny check licenses bans sources
else
	say "SKIPPED: licences, bans, sources (cargo-deny is not installed; \`make deny\` builds it once)"
fi
say "all passed"
