#!/usr/bin/env bash
# Runs every test: unit tests, and those with real network namespaces and packets, which need root and must not be skipped. A failure stops
# nothing else, and a table in the end lists the failures. PART=traffic runs the tests that need the processors for their own packets.
# PART=others runs the rest, which mostly wait for an API server.
# usage: test.sh [go test flags]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/stages.sh
. scripts/stages.sh
need_root
need nft=nftables iptables-nft=iptables ip=iproute2 nsenter=util-linux setpriv=util-linux strace=strace buildah=buildah
need_prometheus
need_go
# Mostly for Kubernetes' modules and compiled packages. After the first build a run needs little space.
ls -d "$cache"/kubernetes-* >/dev/null 2>&1 || need_space 10 "$cache" "$(go env GOCACHE)" "$(go env GOMODCACHE)"

logs=dist/test
case ${PART:=} in
'') ;;
traffic | others) logs+=/$PART ;;
*) refuse "PART: invalid value \"$PART\"" "Valid: traffic, others, or nothing for all." 2 ;;
esac

vet() {
	local failed=0 module
	for module in . conformance scripts/images scripts/release; do
		go -C "$module" vet ./... || failed=1
	done
	return $failed
}

# The programs for the tests of conformance take minutes to build the first time, so they are built during the earlier tests.
log=$logs/programs.log
rm -rf "$logs"
mkdir -p "$logs"
set -m # a process group of its own, so that all of it ends with this script
nice -n 19 bash -c 'scripts/kubernetes.sh kube-apiserver etcd kubectl multus passthru && scripts/helm.sh' >"$log" 2>&1 &
building=$!
set +m
trap '[ -z "$building" ] || kill -- -$building 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM HUP

programs() {
	local status=0
	tail -n +1 --pid=$building -f "$log"
	wait $building || status=$?
	building= # another process may get its number from now on
	return $status
}

# part PART NAME COMMAND...: declares a stage, if that part is to run.
part() { case $1 in "${PART:-$1}") stage "$2" "" "${@:3}" ;; esac }

# One package at a time: the traffic tests of two packages at the same time would compete for the processors and take longer.
part traffic vet vet
part traffic product go test -p 1 -count 1 -timeout 20m ./... "$@"
part traffic scripts scripts/lib_test.sh
part others scripts/images go -C scripts/images test -count 1 ./... "$@"
part others scripts/release go -C scripts/release test -count 1 ./... "$@"
stage "programs to test with" "" programs
# The black-box tests without e2e, which needs more of the machine: make e2e
conformance() { go -C conformance test -p 1 -count 1 -timeout 20m "$@"; }
for package in internal/... bench/... cni demo kernels pages playground schemas shapes shop; do
	part traffic "conformance/$package" conformance "./$package" "$@"
done
part others conformance/node conformance ./node -skip '^TestCRIO' "$@"
part others conformance/crio conformance ./node -run '^TestCRIO' "$@"
part others conformance/chart conformance ./chart "$@"
follow_stages "$logs"
