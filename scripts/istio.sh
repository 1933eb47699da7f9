#!/usr/bin/env bash
# Builds Istio's own injection and validation at the version that conformance/istio/go.mod pins, once, into the cache, with Istio's charts, and
# prints the directory they are in. usage: istio.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
version=$(pinned istio istio.io/istio)
source=$(cat "$root"/conformance/istio/*/main.go | sha256sum | cut -c1-12)
go=$(go env GOVERSION)
dir=$cache/istio-${version##*-}-$source-$go

# build PROGRAM FILE
build() {
	CGO_ENABLED=0 go -C "$root/conformance/istio" build -o "$2" "./$1"
}

# charts DIRECTORY
charts() {
	module=$(go -C "$root/conformance/istio" list -m -f '{{.Dir}}' istio.io/istio)
	cp -r --no-preserve=mode "$module/manifests" "$1"
}

for program in injector agent; do
	once "$dir/istio-$program" "Istio's $program" build $program
done
once "$dir/istio-manifests" "Istio's charts" charts
echo "$dir"
