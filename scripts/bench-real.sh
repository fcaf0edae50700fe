#!/usr/bin/env bash
# Uneven sessions on real llama-servers, through ingle and through Caddy. Sets both up first, in a cache folder
# (INGLE_CACHE, or ~/.cache/ingle), and takes about five minutes for each round.
#
#   scripts/bench-real.sh [--rounds 3] [--write docs/real-servers.md] [...]      see benches/real/main.rs
#
# The servers' work takes seconds and the gateway's microseconds: the quickly built profile will do.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

say "real llama-servers, and Caddy"
settings=$(scripts/real/setup.sh caddy)
eval "$settings"
export INGLE_REAL_PYTHON INGLE_REAL_MODEL INGLE_CADDY
say "uneven sessions, a server that dies and comes back"
cargo bench --profile fast --bench real -- "$@"
