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

go vet ./...
go -C conformance vet ./...
# One package at a time: the traffic tests of two packages at once would compete for the processors and wait longer.
go test -p 1 -count 1 -timeout 20m ./... "$@"
go -C conformance test -p 1 -count 1 -timeout 20m ./... "$@"
