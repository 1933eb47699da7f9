#!/usr/bin/env bash
# Runs every test: unit tests, and those on real network namespaces and packets, which need root and may not skip.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
need nft=nftables iptables-nft=iptables ip=iproute2 nsenter=util-linux strace=strace
need_go

# The API server and Multus that conformance needs, and Helm, take minutes to build the first time: that goes on beside the tests before it.
set -m # a process group of its own, so that all of it ends with a test that fails
(nice -n 19 scripts/kubernetes.sh kube-apiserver etcd kubectl multus && nice -n 19 scripts/helm.sh) >/dev/null &
building=$!
set +m
trap 'kill -- -$building 2>/dev/null || true' EXIT

go vet ./...
go -C conformance vet ./...
go -C scripts/images vet ./...
# One package at a time: the traffic tests of two packages at once would compete for the processors and wait longer.
go test -p 1 -count 1 -timeout 20m ./... "$@"
go -C scripts/images test -count 1 ./... "$@"
wait $building
trap - EXIT # its number may be somebody else's from now on
# e2e needs more of the machine: make e2e
go -C conformance test -p 1 -count 1 -timeout 20m ./internal/... ./cni ./node ./chart "$@"
