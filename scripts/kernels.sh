#!/usr/bin/env bash
# Runs the rules, the plugin and the init wait on other kernels, and agent and operator's tool where these lack something. The kernels
# are those of Debian's suites, as of today, and qemu emulates their machines. Nothing of them is installed, and only qemu runs on the
# machine's own kernel.
# usage: kernels.sh [--list] [--short] [KERNEL...]
# KERNEL is 5.10, 6.1, 6.12, newest or arm64; without one, all. 6.1/no-ipv6 is one boot of it, by its name in the table in the end.
# --short boots 5.10 and 6.12 only, with fewer tests and without the nodes that lack something. If the mirror no longer has one of them,
# --short takes the kernel of the next newer suite. --list prints what would be booted, and boots nothing.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/stages.sh
. scripts/stages.sh

known=(5.10 6.1 6.12 newest arm64)
newer=(bullseye bookworm trixie sid)
declare -A suite_of=([5.10]=bullseye [6.1]=bookworm [6.12]=trixie [newest]=sid [arm64]=bookworm)
short=no list=no
kernels=()
selected=()
for arg in "$@"; do
	case $arg in
	--short) short=yes && continue ;;
	--list) list=yes && continue ;;
	esac
	[ -n "${suite_of[${arg%%/*}]:-}" ] || refuse "unknown kernel: $arg" "usage: kernels.sh [--list] [--short] [KERNEL...], of: ${known[*]}" 2
	selected+=("$arg")
	[[ " ${kernels[*]} " = *" ${arg%%/*} "* ]] || kernels+=("${arg%%/*}")
done
if [ ${#kernels[@]} = 0 ]; then
	kernels=("${known[@]}")
	[ $short = no ] || kernels=(5.10 6.12)
	selected=("${kernels[@]}")
fi
if [ $list = no ]; then
	need_go
	need nft=nftables iptables-nft=iptables ip=iproute2 sysctl=procps nsenter=util-linux setpriv=util-linux strace=strace mount=mount
	need_qemu
	case " ${kernels[*]} " in *" arm64 "*) need qemu-system-aarch64=qemu-system-arm ;; esac
fi

work=$(mktemp -d)
qemu=
end() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT TERM HUP

# mirror_of: prints the Debian mirror of this machine's apt. If apt has no lists, it fetches lists into the work directory.
mirror_of() {
	local found options=()
	for _ in 1 2; do
		# shellcheck disable=SC2016 # apt's own variables; bookworm-updates and similar suites are elsewhere
		found=$(apt-get "${options[@]}" indextargets --format '$(ORIGIN) $(CODENAME) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' \
			2>/dev/null | awk '$1 == "Debian" && $2 !~ /-/ && $3 == "main" {print $4; exit}')
		[ -z "$found" ] || break
		mkdir -p "$work/lists/partial"
		options=(-o "Dir::State::Lists=$work/lists" -o APT::Sandbox::User=root)
		apt-get "${options[@]}" update >/dev/null 2>&1 || true
	done
	echo "$found"
}

# apt_of SUITE ARCHITECTURE TOOL ARGUMENT...: runs one of apt's tools on that suite of the mirror, with its own lists and caches, and with
# no package installed. The lists may be old, because a mirror may be a snapshot.
apt_of() {
	local dir=$work/apt-$1-$2 suite=$1 architecture=$2 tool=$3
	shift 3
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	[ -e "$dir/sources.list" ] ||
		echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror $suite main" >"$dir/sources.list"
	"$tool" -q -o Dir::Etc::SourceList="$dir/sources.list" -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$dir/lists" \
		-o Dir::State::Status=/dev/null -o Dir::Cache="$dir/cache" -o Debug::NoLocking=true -o APT::Architecture="$architecture" \
		-o APT::Architectures="$architecture" -o APT::Sandbox::User=root -o Acquire::Languages=none \
		-o Acquire::Check-Valid-Until=false "$@"
}

# latest SUITE ARCHITECTURE: prints the package of the suite's present kernel
latest() {
	apt_of "$1" "$2" apt-get update >/dev/null 2>&1 || return 1
	apt_of "$1" "$2" apt-cache depends "linux-image-$2" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1
}

# resolve NAME: sets package and suite; with --short to the next newer suite if necessary. Returns 1 if the mirror has none.
resolve() {
	local reached=no
	for suite in "${newer[@]}"; do
		[ "$suite" != "${suite_of[$1]}" ] || reached=yes
		[ $reached = yes ] || continue
		package=$(latest "$suite" "$(architecture_of "$1")" || true)
		if [ -n "$package" ]; then
			[ "$suite" = "${suite_of[$1]}" ] || say "$1: $package of $suite takes its place"
			return 0
		fi
		say "$1: the mirror has no kernel of the suite $suite"
		[ $short = yes ] || return 1
	done
	return 1
}

architecture_of() { case $1 in arm64) echo arm64 ;; *) echo amd64 ;; esac }

# kernel PACKAGE SUITE ARCHITECTURE TARGET: makes a directory with the kernel, and with an archive of its modules for networking.
kernel() {
	local deb part file names files=$work/files
	mapfile -t names < <(echo "$1" && apt_of "$2" "$3" apt-cache depends "$1" |
		sed -n 's/^ *Depends: \(linux-\(base\|binary\|modules\)-[0-9].*\)/\1/p')
	rm -rf "$files"
	mkdir "$files" "$4"
	(cd "$files" && apt_of "$2" "$3" apt-get download "${names[@]}" >/dev/null)
	for deb in "$files"/*.deb; do
		dpkg-deb -x "$deb" "$files"
		rm "$deb"
	done
	for file in "$files"/boot/vmlinuz-* "$files"/usr/lib/modules/*/vmlinuz; do # up to trixie, and later
		[ ! -e "$file" ] || cp "$file" "$4/vmlinuz"
	done
	[ -e "$4/vmlinuz" ] || refuse "there is no kernel in ${names[*]}" "This Debian has it elsewhere."
	[ -d "$files/usr/lib/modules" ] || { mkdir -p "$files/usr/lib" && mv "$files/lib/modules" "$files/usr/lib/"; }
	local release from to
	release=$(basename "$files"/usr/lib/modules/*)
	from=$files/usr/lib/modules/$release to=$files/of/usr/lib/modules/$release
	mkdir -p "$to/kernel" && ln -s usr/lib "$files/of/lib" # as in the base archive, over which it is unpacked
	for part in net lib crypto arch drivers/net/{veth,dummy,tun}.ko*; do
		for file in "$from/kernel"/$part; do
			[ ! -e "$file" ] || (cd "$from/kernel" && cp -r --parents "${file#"$from/kernel/"}" "$to/kernel/")
		done
	done
	cp "$from"/modules.{builtin,builtin.modinfo,order} "$to/"
	find "$to" -name '*.xz' -exec xz -d -T 2 {} +
	find "$to" -name '*.zst' -exec zstd -q -d --rm {} +
	depmod -b "$files/of" "$release" 2>/dev/null
	archive "$files/of" >"$4/modules.cpio"
	rm -r "$files"
}

# archive DIRECTORY: packs the directory as an initial file system for a kernel
archive() { (cd "$1" && find . -mindepth 1 | cpio --quiet --create --format=newc --owner=0:0); }

# programs_of_here DIRECTORY: copies the programs for the tests from this machine, with their libraries, below a root directory
programs_of_here() {
	local name file
	for name in nft ip{,6}tables{,-nft,-legacy}{,-save,-restore} ip nsenter unshare setpriv strace mount umount sysctl kmod modprobe \
		busybox bash sh cat chmod cp grep sed sleep true; do
		file=$(type -P "$name")
		below "$1" "$file"
		for file in $(ldd "$file" 2>/dev/null | grep -o '/[^ ]*'); do below "$1" "$file"; done
	done
	for file in /usr/lib/*/xtables/lib*.so; do
		case ${file##*/} in libxt_* | libip6t_* | libipt_*) below "$1" "$file" ;; esac
	done
}

# below DIRECTORY FILE: copies a file, following links, to the same path there
below() {
	mkdir -p "$1${2%/*}"
	cp -L "$2" "$1$2"
}

# programs_of SUITE ARCHITECTURE DIRECTORY: does that for another architecture, from the suite's packages
programs_of() {
	local deb
	apt_of "$1" "$2" apt-get install -y --no-install-recommends --download-only nftables iptables iproute2 util-linux mount strace procps \
		kmod bash coreutils grep sed busybox-static >/dev/null
	for deb in "$work/apt-$1-$2"/cache/archives/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x --keep-directory-symlink -C "$3"
		rm "$deb"
	done
	rm -rf "$3"/usr/share/{doc,man,locale,info,perl*} "$3"/usr/lib/*/perl-base "$3/init"
	for deb in ip ip6; do # as the package's installation script does
		for name in "" -save -restore; do ln -sf xtables-nft-multi "$3/usr/sbin/${deb}tables$name"; done
	done
	ln -sf bash "$3/usr/bin/sh"
}

# lacking_of ARCHITECTURE: prints the package of tests for nodes that lack something, if there are such boots
lacking_of() { [ $short-"$1" != no-amd64 ] || echo conformance/kernels; }

# guest DIRECTORY ARCHITECTURE: makes the tests of this tree, and the first process, which runs those in /tests and then powers off. Of
# successful tests it only prints their number and the packets that they sent. A line FAIL names a failed one.
guest() {
	local package
	mkdir -p "$1"/{dev,proc,sys,tmp,run,root,etc,built,var/lib,var/run}
	for package in plugin plugin/look plugin/netfilter plugin/wait conformance/cni $(lacking_of "$2"); do
		mkdir -p "$1/$package"
		GOARCH=$2 go -C "$package" test -c -ldflags '-s -w' -o "$1/$package/run.test" .
		[ ! -d "$package/testdata" ] || cp -r "$package/testdata" "$1/$package/"
	done
	GOARCH=$2 go build -trimpath -ldflags '-s -w' -o "$1/built/" ./plugin/...
	[ -z "$(lacking_of "$2")" ] || GOARCH=$2 go build -trimpath -ldflags '-s -w' -o "$1/built/" ./agent/istio-pod-network{-agent,ctl}
	GOARCH=$2 go -C conformance build -trimpath -ldflags '-s -w' -o "$1/built/" tool
	cp "$1/usr/bin/busybox" "$1/busybox" # under a name that no boot removes
	cat >"$1/usr/bin/go" <<-'END'
		#!/busybox sh
		# A test that builds a program of the product gets the one that was built before.
		while [ $# -gt 0 ]; do
			case $1 in
			-o) target=$2 && shift ;;
			./* | ../*) program=${1##*/} ;;
			esac
			shift
		done
		exec /busybox cp "/built/$program" "$target"
	END
	cat >"$1/init" <<-'END'
		#!/busybox sh
		export PATH=/usr/sbin:/usr/bin HOME=/root
		b=/busybox
		$b mount -t proc proc /proc
		$b mount -t sysfs sys /sys
		$b mount -t devtmpfs dev /dev
		$b mount -t tmpfs -o mode=1777 tmp /tmp
		$b mount -t tmpfs run /run
		$b mount -t cgroup2 cgroup /sys/fs/cgroup
		$b ip link set lo up
		export LACKS="$($b cat /lacks)" ISTIO_POD_NETWORK_CONFORMANCE_BIN=/built PACKETS="$($b cat /packets)" SEED=1011
		for lacks in $LACKS; do
			$b find /lib/modules/ -name "$lacks.ko" -exec $b rm {} \;
			$b rm -f /usr/sbin/$lacks /usr/sbin/$lacks-*
		done
		echo # the firmware leaves the line open
		echo "Linux $($b uname -rm)${LACKS:+ without $LACKS}"
		$b cat /tests | while read -r directory least pattern; do
			cd "/$directory"
			echo "$directory: $pattern"
			$b rm -f /tmp/output
			./run.test -test.v -test.run "$pattern" -test.timeout 60m </dev/null >/tmp/output 2>&1
			status=$?
			passed=$($b grep -c -- '--- PASS: ' /tmp/output)
			if [ $status != 0 ]; then
				$b grep -v -e '^ *=== ' -e '--- PASS: ' /tmp/output
				$b printf 'FAIL\t%s\n' $directory
			elif [ $passed -lt $least ]; then
				$b printf 'FAIL\t%s\t[%s tests ran, not %s]\n' $directory $passed $least
			else
				$b sed -n 's/^ *model_test.go:[0-9]*: //p' /tmp/output
				echo "$directory: $passed passed"
			fi
		done
		echo "the tests have ended"
		$b poweroff -f
	END
	chmod 755 "$1/init" "$1/usr/bin/go"
}

# base ARCHITECTURE: makes the first part of each initial file system of it
base() {
	local dir=$work/base name
	mkdir -p "$dir"/usr/{bin,sbin,lib,lib64}
	for name in bin sbin lib lib64; do ln -s "usr/$name" "$dir/$name"; done
	if [ "$1" = "$(dpkg --print-architecture)" ]; then
		programs_of_here "$dir"
	else
		programs_of bookworm "$1" "$dir"
	fi
	guest "$dir" "$1"
	archive "$dir" >"$work/base-$1.cpio"
	rm -r "$dir"
}

# boot KERNEL ARCHITECTURE ARGUMENTS LACKS TESTS: runs tests on that kernel. A line of TESTS has a directory, the least number of tests, and
# their pattern. Returns 1 if one or the kernel has failed.
boot() {
	local kernel=$1 architecture=$2 arguments=$3 lacks=$4 tests=$5 job=$work/job console=$work/console command
	mkdir -p "$job" && echo "$lacks" >"$job/lacks" && echo "$tests" >"$job/tests" && echo $packets >"$job/packets" &&
		archive "$job" | cat "$work/base-$architecture.cpio" "$kernel/modules.cpio" - >"$work/initrd" || return 1
	case $architecture in
	# newer processors have features that are slow in software: five-level page tables, AVX
	amd64) command=(qemu-system-x86_64 -cpu Nehalem -append "console=ttyS0 panic=-1 loglevel=3 nowatchdog mitigations=off $arguments") ;;
	arm64) command=(qemu-system-aarch64 -M virt -cpu cortex-a57 -append "console=ttyAMA0 panic=-1 loglevel=3 nowatchdog $arguments") ;;
	esac
	: >"$console"
	# A minute or two on an idle machine. On a busy one, at low priority, it may mostly wait.
	timeout 4500 "${command[@]}" -accel tcg,thread=multi -smp 2 -m 1536 -nographic -no-reboot -nodefaults -kernel "$kernel/vmlinuz" \
		-initrd "$work/initrd" -serial "file:$console" </dev/null &
	qemu=$!
	tail -n +1 -s 0.5 -f --pid=$qemu "$console" | sed -u -n '/^Linux /,$ {s|\r$||; p}' # without the firmware's output
	local status=0
	wait $qemu || status=$?
	qemu=
	grep -q '^Linux ' "$console" || cat "$console"
	[ $status = 0 ] || echo "qemu ended with status $status (124: it took too long)"
	[ $status = 0 ] && grep -q '^the tests have ended' "$console" && ! grep -q '^FAIL' "$console"
}

# prepare: makes what is needed to boot the kernel at $at, of that package, suite and architecture.
prepare() {
	find "${at%/*}" -mindepth 1 -maxdepth 1 -type d ! -name "$package*" -exec rm -r {} + 2>/dev/null || true # older kernels of the same name
	once "$at" "$package of $suite" kernel "$package" "$suite" "$architecture"
	[ ! -e "$work/base-$architecture.cpio" ] || return 0
	say "building the tests for $architecture"
	base "$architecture"
}

# node NAME ARGUMENTS LACKS TESTS: declares a boot of the kernel $name, if it is selected
node() {
	case " ${selected[*]} " in
	*" $name "* | *" $name/$1 "*) stage "$name/$1" "" boot "$at" "$architecture" "${@:2}" ;;
	*) return 0 ;;
	esac
	[ $list = no ] || echo "$name/$1: $package of $suite"
}

# absent REASON: fails in place of a kernel's boots
absent() {
	echo "$1"
	return 1
}

# in every variant of a node: each backend in each mode with every verb
backends='conformance/cni 11 ^TestBackends$'
plugin='plugin 6 ^(TestAddRedirects|TestAddAgain|TestCheckOfRecordedPod|TestDelRemoves|TestDelNeverFails|TestGC)$
plugin/look 1 ^TestThisKernel$'
# compares plugin/trace's predictions with where packets go: that many packets with each backend, with random settings and other chains. The
# first input of this seed alone shows four of the wrong steps in TestWrongStepsBesideOthers.
random='plugin/netfilter 3 ^TestRandomTraffic$'
packets=200
traffic() { echo "plugin/netfilter $1 ^TestTraffic\$/^.*\$/^dual_stack\$/^($2)\$"; }
if [ $short = yes ]; then
	packets=100
	backends='conformance/cni 9 ^TestBackends$/^(nftables|iptables-nft|iptables-legacy|auto)$'
	everything="$backends
$plugin
$(traffic 13 'default|tproxy-dns')
$random
plugin/wait 4 ^TestProbe\$/^dual_stack\$
plugin/wait 1 ^TestAnnotation\$"
else
	everything="$backends
conformance/cni 14 ^(TestChain|TestGC)\$
$plugin
$(traffic 34 'default|tproxy|dns|tproxy-dns|exclude-ranges|tproxy-exclude-ranges|include-ports|exclude-inbound|tproxy-reroute')
$random
plugin/wait 12 ^(TestProbe|TestProbeFails|TestAnnotation)\$"
fi

mirror=$(mirror_of)
[ -n "$mirror" ] || refuse "apt knows no mirror of Debian" "Run it on Debian, with a mirror that apt-get update can reach."
gone=
for name in "${kernels[@]}"; do
	architecture=$(architecture_of "$name")
	if ! resolve "$name"; then
		stage "$name" "" absent "the mirror has no kernel of Debian's suite ${suite_of[$name]}"
		gone+=" $name"
		continue
	fi
	at=$cache/kernels/$architecture-$suite/$package
	if [ $list = no ]; then
		prepare & # in the background, so that a failure does not end the script
		if ! wait $!; then
			stage "$name" "" absent "$package of $suite could not be made ready to be booted: the reason is above"
			continue
		fi
	fi
	node everything "" "" "$everything"
	case $short-$name in yes-5.10 | *-arm64) continue ;; esac
	node no-ipv6 ipv6.disable=1 "" "$backends"
	[ $short = no ] || continue
	for lacks in nft_tproxy nft_chain_nat nf_tables "nf_tables ip_tables" ip6tables xt_owner "nft_fib xt_addrtype"; do
		case $lacks in
		nf_tables) more=$'\nconformance/kernels 3 ^TestFaultTable$' ;;
		nf_tables\ *) more=$'\nconformance/kernels 2 ^TestFaultTable$' ;;
		*) more= ;;
		esac
		node "no-${lacks// /-}" "" "$lacks" "$backends$more"
	done
done
[ ${#stages[@]} -gt 0 ] || refuse "no boot is called ${selected[*]}" "Name a kernel alone: the table in the end names its boots." 2
if [ $list = yes ]; then
	[ -z "$gone" ] || refuse "the mirror does not have:$gone" "Leave them out, or use a mirror that has them."
	exit 0
fi
rm -rf dist/kernels
follow_stages dist/kernels
