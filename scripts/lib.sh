# Sourced by the scripts here: what they need of the machine. Debian packages are installed where they are missing.
# shellcheck shell=bash

die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# need_root WHY
need_root() {
	[ "$(id -u)" = 0 ] || die "$1 needs root, for it makes network namespaces; run it with sudo"
}

# need_go: Go as go.mod asks for
need_go() {
	if ! command -v go >/dev/null && [ -x /usr/local/go/bin/go ]; then PATH=$PATH:/usr/local/go/bin; fi
	command -v go >/dev/null || die "Go is not installed; install the version that go.mod names, or a later one (https://go.dev/dl)"
}

# need_programs PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing
need_programs() {
	local pair missing=()
	for pair in "$@"; do
		command -v "${pair%%=*}" >/dev/null || [ -x "/usr/sbin/${pair%%=*}" ] || missing+=("${pair#*=}")
	done
	[ ${#missing[@]} -eq 0 ] && return
	command -v apt-get >/dev/null || die "missing programs; install the packages of your distribution for: ${missing[*]}"
	[ "$(id -u)" = 0 ] || die "missing Debian packages; install them as root: apt-get install ${missing[*]}"
	printf 'installing Debian packages: %s\n' "${missing[*]}"
	DEBIAN_FRONTEND=noninteractive apt-get -qq update </dev/null >/dev/null
	DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" </dev/null >/dev/null
}

# cache_dir: for what is built once, outside the repository
cache_dir() {
	printf '%s/istio-pod-network' "${XDG_CACHE_HOME:-$HOME/.cache}"
}
