#!/usr/bin/env bash
# The tests on real llama-servers. Sets them up first, in a cache folder (INGLE_CACHE, or ~/.cache/ingle).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

say "real llama-servers"
settings=$(scripts/real/setup.sh)
eval "$settings"
export INGLE_REAL_PYTHON INGLE_REAL_MODEL INGLE_REAL=1
# How many streams each test of a failure loses, and how many turns the figures are compared over.
export INGLE_REAL_STREAMS=${INGLE_REAL_STREAMS:-40} INGLE_REAL_TURNS=${INGLE_REAL_TURNS:-200}
say "tests on real llama-servers"
cargo test --test real -- --nocapture --test-threads=1 "$@"
