#!/usr/bin/env bash
# Builds the current releases of Helm 3 and Helm 4, in the versions of conformance/helm3 and conformance/helm4, each once, into the cache,
# and prints the directory in which they are helm3 and helm4.
# usage: helm.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
helm3=$(pinned helm3 helm.sh/helm/v3)
helm4=$(pinned helm4 helm.sh/helm/v4)
go=$(go env GOVERSION)
dir=$cache/helm-$helm3-$helm4-$(locked helm3 helm4)-$go

# build MAJOR VERSION FILE: builds one of them
build() {
	flags="-s -w -X helm.sh/helm/v$1/internal/version.version=$2"
	if [ "$1" = 3 ]; then # the Kubernetes version for renders without a cluster; Helm 4 knows it itself
		kubernetes=$(pinned helm3 k8s.io/client-go)
		kubernetes=${kubernetes#v0.}
		for package in pkg/lint/rules pkg/chartutil; do
			flags="$flags -X helm.sh/helm/v3/$package.k8sVersionMajor=1 -X helm.sh/helm/v3/$package.k8sVersionMinor=${kubernetes%%.*}"
		done
	fi
	go -C "$root/conformance/helm$1" build -trimpath -ldflags "$flags" -o "$3" "helm.sh/helm/v$1/cmd/helm"
}

once "$dir/helm3" "Helm $helm3" build 3 "$helm3"
once "$dir/helm4" "Helm $helm4" build 4 "$helm4"
echo "$dir"
