#!/bin/sh
# The demo: one mesh pod from ADD to DEL, with real packets. `make demo` runs this.
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

root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"

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
	--dns)
		case $value in
		1 | true | yes | on) dns=true ;;
		0 | false | no | off) dns=false ;;
		*) invalid --dns "$value" "1, true, yes, on; 0, false, no, off" ;;
		esac
		;;
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

need_root
need nft=nftables ip=iproute2
case $backend in iptables*) need iptables-save=iptables ;; esac
if [ "$backend" = nftables ] || [ "$backend" = auto ]; then
	nft list tables >/dev/null 2>&1 || refuse "this kernel offers no nftables to this process" \
		"modprobe nf_tables, or make demo BACKEND=iptables-legacy; inside a container, --privileged is needed."
fi

need_go
tools=$("$root/scripts/cni.sh")
bin=$cache/demo
mkdir -p "$bin"
say "building the plugin"
cd "$root"
# build MODULE PACKAGE: builds a program
build() {
	go -C "$1" build -trimpath -ldflags '-s -w' -o "$bin/" "$2" || refuse "the build failed" "The reason is above."
}
build . ./plugin/istio-pod-network
build conformance ./demo

export CNI_PATH="$bin:$tools" PATH="$tools:$bin:$PATH"
exec "$bin/demo" --backend "$backend" --mode "$mode" --families "$families" --dns="$dns" $color </dev/null
