#!/usr/bin/env bash
# Installs what the build needs and the machine lacks: a C compiler and cmake (zlib-ng, which Pingora links).
set -euo pipefail

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

command -v cargo >/dev/null || {
	say "Rust is missing. Install it first: https://rustup.rs"
	exit 1
}
missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v cmake >/dev/null || missing+=(cmake)
[ ${#missing[@]} -eq 0 ] && exit 0

say "installing ${missing[*]}"
if [ "$(id -u)" = 0 ]; then sudo=(); elif command -v sudo >/dev/null; then sudo=(sudo); else
	say "not root, and no sudo: install ${missing[*]} yourself, then try again"
	exit 1
fi
"${sudo[@]}" apt-get update -qq
DEBIAN_FRONTEND=noninteractive "${sudo[@]}" apt-get install -y -qq "${missing[@]}" >/dev/null
