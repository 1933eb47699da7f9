#!/bin/sh
# The demo: one pod of the mesh from ADD to DEL, with real packets, for a person to read. `make demo` calls this.
set -eu

usage() {
	cat <<'EOF'
Usage: scripts/demo.sh [options]        (or: make demo [VARIABLE=value ...])

Shows what the CNI plugin does to one pod. Two network namespaces, a pod and its node, get a real CNI chain (bridge, then
this plugin) that is called by the real cnitool. Real packets are sent before ADD, after ADD and after DEL; a table says
where each one landed and why. In between: the decision and its reason, the rules, and CHECK before and after a rule is
deleted by hand. The exit status is 0 only if every packet landed where it should.

Needs root, Debian (or a relative with apt-get) and Go. Programs that are missing are installed, after saying so. The
demo itself runs in namespaces of its own: the machine's network, files and rules are not touched, and there is nothing
to clean up, also after Ctrl-C. It takes a few seconds, after a first build of a minute or two.

Options                     make          Values (the first is the default)
  --backend NAME            BACKEND=      auto, nftables, iptables, iptables-nft, iptables-legacy
                                          auto takes nftables where the kernel has it
  --mode MODE               MODE=         REDIRECT, TPROXY
  --families FAMILIES       FAMILIES=     46 (both), 4, 6: the IP families of the pod
  --dns                     DNS=1         capture DNS queries, too
  --no-color                NO_COLOR=1    no colors; there are none anyway where the output is not a terminal
  --help

Examples: make demo        make demo BACKEND=iptables MODE=TPROXY FAMILIES=6 DNS=1        scripts/demo.sh --dns | less
EOF
}

say() { echo "demo: $*" >&2; }

# refuse says what keeps the demo from running, and then what to do about it.
refuse() {
	say "$1"
	echo "      $2" >&2
	exit "${3:-1}"
}

invalid() { refuse "$1: invalid value \"$2\"" "Valid: $3. More: scripts/demo.sh --help" 2; }

backend=auto mode=REDIRECT families=46 dns=false color=
while [ $# -gt 0 ]; do
	case $1 in
	--*=*) option=${1%%=*} value=${1#*=} ;;
	--backend | --mode | --families)
		[ $# -gt 1 ] || refuse "$1: no value" "More: scripts/demo.sh --help" 2
		option=$1 value=$2
		shift
		;;
	*) option=$1 value=true ;;
	esac
	shift
	case $option in
	--backend) backend=$value ;;
	--mode) mode=$value ;;
	--families) families=$value ;;
	--dns) dns=$value ;;
	--no-color) color=--no-color ;;
	-h | --help) usage && exit 0 ;;
	*) refuse "unknown option \"$option\"" "The options: scripts/demo.sh --help" 2 ;;
	esac
done
case $backend in
auto | nftables | iptables | iptables-nft | iptables-legacy) ;;
*) invalid --backend "$backend" "auto, nftables, iptables, iptables-nft, iptables-legacy" ;;
esac
case $mode in REDIRECT | TPROXY) ;; *) invalid --mode "$mode" "REDIRECT, TPROXY" ;; esac
case $families in 4 | 6 | 46) ;; *) invalid --families "$families" "46, 4, 6" ;; esac
case $dns in true | false) ;; *) invalid --dns "$dns" "true, false" ;; esac

[ "$(uname -s)" = Linux ] || refuse "this is no Linux" "Network namespaces are Linux's; a virtual machine will do."
[ "$(id -u)" = 0 ] || refuse "not root, and only root may make network namespaces" "sudo make demo"
[ -e /proc/net/if_inet6 ] || refuse "this kernel runs without IPv6" "Boot it without ipv6.disable=1."

root=$(cd "$(dirname "$0")/.." && pwd)
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/istio-pod-network
PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin # sudo's PATH lacks the place where Go's own archive goes

# missing lists the packages of the programs that are not there.
missing() {
	command -v nft >/dev/null || printf ' nftables'
	command -v ip >/dev/null || printf ' iproute2'
	case $backend in
	iptables*) command -v iptables-save >/dev/null || printf ' iptables' ;;
	esac
}

# install_missing installs packages, or says which ones a person has to install.
install_missing() {
	packages=$1
	command -v apt-get >/dev/null ||
		refuse "not installed:$packages" "Install what this system calls them; there is no apt-get to do it with."
	say "installing$packages"
	# shellcheck disable=SC2086 # one word per package
	set -- apt-get install -y -qq --no-install-recommends $packages
	if ! DEBIAN_FRONTEND=noninteractive "$@" >/dev/null 2>&1 </dev/null; then
		apt-get update -qq >/dev/null 2>&1 </dev/null || true
		DEBIAN_FRONTEND=noninteractive "$@" >/dev/null </dev/null ||
			refuse "apt-get could not install$packages" "Try: apt-get update && apt-get install$packages"
	fi
}

packages=$(missing)
[ -z "$packages" ] || install_missing "$packages"
packages=$(missing)
[ -z "$packages" ] || refuse "still missing after the installation:$packages" "Try: apt-get install --reinstall$packages"
if [ "$backend" = nftables ] || [ "$backend" = auto ]; then
	nft list tables >/dev/null 2>&1 || refuse "this kernel offers no nftables to this process" \
		"modprobe nf_tables, or make demo BACKEND=iptables-legacy; inside a container, --privileged is needed."
fi

# Debian's Go does not fetch the toolchain that go.mod asks for unless it is told to. Before 1.21, none can.
export GOTOOLCHAIN="${GOTOOLCHAIN:-auto}" CGO_ENABLED=0
remedy="Unpack a current release of Go from https://go.dev/dl into /usr/local, or put its bin directory into PATH."
if ! command -v go >/dev/null; then
	case $(apt-cache policy golang-go 2>/dev/null | sed -n 's/.*Candidate: 2:1\.\([0-9]*\).*/\1/p') in
	2[1-9] | [3-9][0-9]) install_missing " golang-go ca-certificates" ;;
	*) refuse "there is no Go, and this Debian has none that is new enough" "$remedy" ;;
	esac
fi
wanted=$(sed -n 's/^go //p' "$root/go.mod")
version=$(cd "$root" && go version 2>&1) || refuse "this Go cannot build for go $wanted: $version" "$remedy"

# Building: the tools once per version, in the cache that the conformance tests use, too; ours whenever it has changed.
versions=$(go -C "$root/conformance" list -m -f '{{.Version}}' \
	github.com/containernetworking/cni github.com/containernetworking/plugins) ||
	refuse "Go could not read the modules" "It fetches them once, and needs a network for that: see GOPROXY."
tools=$cache/cni-$(echo "$versions" | tr '\n' -)$(go -C "$root/conformance" env GOVERSION)
mkdir -p "$cache"
if [ ! -d "$tools" ]; then
	say "building cnitool and the reference plugins, once"
	building=$(mktemp -d "$cache/building-XXXXXX")
	trap 'rm -rf "$building"' EXIT
	trap 'exit 130' INT TERM HUP
	go -C "$root/conformance" build -o "$building/" tool || refuse "the build of the tools failed" "The reason is above."
	chmod 755 "$building"
	mv -T "$building" "$tools" 2>/dev/null || [ -d "$tools" ] # somebody else was faster
	rm -rf "$building"
	trap - EXIT INT TERM HUP
fi
bin=$cache/demo
mkdir -p "$bin"
say "building the plugin"
cd "$root"
for target in plugin scripts/demo; do
	name=${target#scripts/}
	[ "$name" = demo ] || name=istio-pod-network
	go build -trimpath -ldflags '-s -w' -o "$bin/$name" "./$target" || refuse "the build failed" "The reason is above."
done

export CNI_PATH="$bin:$tools" PATH="$tools:$bin:$PATH"
exec "$bin/demo" --backend "$backend" --mode "$mode" --families "$families" --dns="$dns" $color </dev/null
