#!/usr/bin/env bash
# What the tree of dependencies may hold (deny.toml): licences, doubles and sources, and, if their database can be had,
# RustSec's advisories. Without it this is not a failure, but said; with INGLE_ADVISORIES=required it is one.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*"; }

deny=$(scripts/tool.sh cargo-deny 0.20.2)
say "licences, bans, sources"
"$deny" check licenses bans sources
say "advisories"
if why=$("$deny" fetch db 2>&1); then
	"$deny" check advisories
	# The same database, looked at by its owners' own tool.
	if command -v cargo-audit >/dev/null; then cargo audit; fi
	say "licences, bans, sources and advisories passed"
	exit 0
fi
printf '%s\n' "$why" | sed 's/^/    /' >&2
{
	say "ADVISORIES NOT CHECKED: their database (github.com/RustSec/advisory-db) cannot be reached from here."
	say "Licences, bans and sources passed. Run this again where there is internet before you release."
} >&2
[ "${INGLE_ADVISORIES:-}" != required ]
