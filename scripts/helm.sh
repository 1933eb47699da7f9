#!/usr/bin/env bash
# Builds the current releases of Helm 3 and Helm 4, at the versions that conformance/helm3 and conformance/helm4 pin, each once, into the
# cache, and prints the directory in which they are helm3 and helm4. usage: helm.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
need flock=util-linux
dir=$cache/helm-$(pinned helm3 helm.sh/helm/v3)-$(pinned helm4 helm.sh/helm/v4)-$(go env GOVERSION)
mkdir -p "$dir"
exec 9>"$dir/.lock" # a second caller waits, and then finds what it wants
flock 9
for major in 3 4; do
	[ ! -x "$dir/helm$major" ] || continue
	version=$(pinned "helm$major" "helm.sh/helm/v$major")
	say "building Helm $version, once; it takes a minute"
	start=$SECONDS
	flags="-s -w -X helm.sh/helm/v$major/internal/version.version=$version"
	if [ "$major" = 3 ]; then # which Kubernetes a render without a cluster is for; Helm 4 knows it by itself
		kubernetes=$(pinned helm3 k8s.io/client-go)
		kubernetes=${kubernetes#v0.}
		for package in pkg/lint/rules pkg/chartutil; do
			flags="$flags -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=${kubernetes%%.*}"
		done
	fi
	CGO_ENABLED=0 go -C "$root/conformance/helm$major" build -trimpath -ldflags "$flags" -o "$dir/helm$major.new" "helm.sh/helm/v$major/cmd/helm" 9>&-
	mv "$dir/helm$major.new" "$dir/helm$major"
	say "Helm $version: $((SECONDS - start)) s"
done
echo "$dir"
