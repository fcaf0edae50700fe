#!/usr/bin/env bash
# Everything that goes wrong around a gateway, against the real binary, and a table of it. Arguments go to the suite:
#
#   scripts/faults.sh [--long] [--write docs/faults.md] [NAME]...      see tests/faults/main.rs
#
# Where packets vanish, names change and clocks leap it takes root, and two programs, which are installed where that can
# be done. Without them those scenarios are skipped, and the table says so.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

missing=()
command -v ip >/dev/null || missing+=(iproute2)
ls /usr/lib/*/faketime/libfaketimeMT.so.1 >/dev/null 2>&1 || missing+=(faketime)
if [ ${#missing[@]} -gt 0 ] && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
	say "installing ${missing[*]}"
	apt-get update -qq
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
		say "could not install them"
fi
say "faults"
cargo test --test faults -- "$@"
