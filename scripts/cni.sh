#!/usr/bin/env bash
# Builds cnitool and the reference plugins, in the versions of conformance/go.mod, once, into the cache, and prints their directory.
# usage: cni.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
modules=github.com/containernetworking
cni=$(pinned . $modules/cni)
plugins=$(pinned . $modules/plugins)
go=$(go env GOVERSION)
dir=$cache/cni-$cni-$plugins-$(locked .)-$go
build() {
	mkdir -m 755 "$1"
	go -C "$root/conformance" build -o "$1/" tool
}
once "$dir" "cnitool and the reference plugins" build
echo "$dir"
