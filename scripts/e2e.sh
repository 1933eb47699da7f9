#!/usr/bin/env bash
# Runs the end-to-end tests on a real Kubernetes node, in namespaces of its own: once with the current containerd, which reads
# drop-ins, and once with Debian's, which does not. usage: e2e.sh [go test flags, such as -run NAME]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
need nft=nftables iptables-nft=iptables ip=iproute2 sysctl=procps containerd=containerd ctr=containerd runc=runc
need_go
for runtime in current debian; do
	echo "== containerd: $runtime"
	E2E_CONTAINERD=$runtime go -C conformance test -count 1 -timeout 30m -v ./e2e "$@"
done
