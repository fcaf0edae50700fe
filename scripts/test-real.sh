#!/usr/bin/env bash
# The tests on real llama-servers. Sets them up first, in a cache folder (INGLE_CACHE, or ~/.cache/ingle).
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

say "real llama-servers"
settings=$(scripts/real/setup.sh)
eval "$settings"
export INGLE_REAL_PYTHON INGLE_REAL_MODEL INGLE_REAL=1
say "tests on real llama-servers"
cargo test --test real -- --nocapture --test-threads=1 "$@"
