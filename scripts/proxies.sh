# shellcheck shell=bash
# Installs the other proxies that benchmarks compare with. Sourced by replay.sh and bench.sh, which define `say`.

# Debian and Ubuntu do not put /usr/sbin into every user's path.
PATH=$PATH:/usr/sbin

# nginx and HAProxy with apt, where that is possible.
install_packages() {
	local missing=()
	command -v "${INGLE_NGINX:-nginx}" >/dev/null || missing+=(nginx-light)
	command -v "${INGLE_HAPROXY:-haproxy}" >/dev/null || missing+=(haproxy)
	python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
	[ ${#missing[@]} -eq 0 ] && return
	if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
		say "not installed: ${missing[*]}; install them to have them take part"
		return
	fi
	say "installing ${missing[*]}"
	apt-get update -qq
	# RUNLEVEL: only the programs are needed, no services.
	DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null ||
		say "could not install them"
}

# install_from_pypi VENV REQUIREMENT...: wheels only, into a new venv. VENV/complete exists once they are there.
install_from_pypi() {
	local venv=$1
	shift
	[ -e "$venv/complete" ] && return
	say "installing $* from PyPI into $venv"
	python3 -m venv "$venv" &&
		"$venv/bin/python" -m pip install --disable-pip-version-check --no-input --quiet --only-binary :all: "$@" &&
		touch "$venv/complete" ||
		say "could not install them"
}
