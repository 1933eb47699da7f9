#!/usr/bin/env bash
# Builds the current releases of Helm 3 and Helm 4, at the versions that conformance/helm3 and conformance/helm4 pin, each once, into the
# cache, and prints the directory in which they are helm3 and helm4. usage: helm.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
dir=$cache/helm-$(pinned helm3 helm.sh/helm/v3)-$(pinned helm4 helm.sh/helm/v4)-$(go env GOVERSION)

# build MAJOR FILE
build() {
	flags="-s -w -X helm.sh/helm/v$1/internal/version.version=$(pinned "helm$1" "helm.sh/helm/v$1")"
	if [ "$1" = 3 ]; then # which Kubernetes a render without a cluster is for; Helm 4 knows it by itself
		kubernetes=$(pinned helm3 k8s.io/client-go)
		kubernetes=${kubernetes#v0.}
		for package in pkg/lint/rules pkg/chartutil; do
			flags="$flags -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=${kubernetes%%.*}"
		done
	fi
	CGO_ENABLED=0 go -C "$root/conformance/helm$1" build -trimpath -ldflags "$flags" -o "$2" "helm.sh/helm/v$1/cmd/helm"
}

for major in 3 4; do
	once "$dir/helm$major" "Helm $(pinned "helm$major" "helm.sh/helm/v$major")" build $major
done
echo "$dir"
