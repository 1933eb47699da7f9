#!/usr/bin/env bash
# Builds Istio's own injection and validation at the version that conformance/istio/go.mod pins, once, into the cache, with Istio's charts, and
# prints the directory they are in. usage: istio.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
need flock=util-linux
version=$(pinned istio istio.io/istio)
dir=$cache/istio-${version##*-}-$(cat "$root"/conformance/istio/*/main.go | sha256sum | cut -c1-12)-$(go env GOVERSION)
mkdir -p "$dir"
exec 9>"$dir/.lock"
flock 9 # another caller may be building just this
if [ ! -e "$dir/done" ]; then
	say "building Istio's injection, once; that takes some minutes"
	start=$SECONDS
	(while sleep 30; do say "still building Istio's injection, $((SECONDS - start)) s"; done) 9>&- >&2 &
	progress=$!
	trap 'kill $progress 2>/dev/null || true' EXIT
	for program in injector agent; do
		CGO_ENABLED=0 go -C "$root/conformance/istio" build -o "$dir/istio-$program" "./$program" 9>&-
	done
	rm -rf "$dir/istio-manifests"
	cp -r --no-preserve=mode "$(go -C "$root/conformance/istio" list -m -f '{{.Dir}}' istio.io/istio)/manifests" "$dir/istio-manifests"
	touch "$dir/done"
	kill $progress
	say "Istio's injection: $((SECONDS - start)) s"
fi
echo "$dir"
