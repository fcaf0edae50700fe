#!/usr/bin/env bash
# Prints the path of a cargo tool: the one that is installed, or one built into $INGLE_CACHE (default ~/.cache/ingle) once.
# Usage: scripts/tool.sh CRATE VERSION
set -euo pipefail
crate=$1 version=$2

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

command -v "$crate" && exit 0
folder=${INGLE_CACHE:-$HOME/.cache/ingle}/tools
if [ ! -x "$folder/bin/$crate" ]; then
	say "building $crate $version into $folder (once; takes minutes)"
	# Not into this workspace's target: `make clean` would forget it, and its profile is not meant for tools.
	env -u CARGO_TARGET_DIR cargo install "$crate" --version "$version" --locked --quiet --root "$folder" >&2
fi
echo "$folder/bin/$crate"
