#!/usr/bin/env bash
# Runs the end-to-end tests on a real Kubernetes cluster of two nodes, in namespaces of its own, with the images of the two Dockerfiles and
# the chart. usage: e2e.sh [go test flags, such as -run NAME]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
need_node_programs
need_go
export E2E_FAULTS=${FAULTS:-} E2E_SEED=${SEED:-}
if [ -n "$E2E_FAULTS${E2E_SOAK:-}" ]; then # one of which is about the clock
	clock=$(mktemp -d)
	trap 'rm -rf "$clock"' EXIT
	GOFLAGS="${GOFLAGS:-} $(scripts/clock.sh "$clock")" cluster_images none
else
	cluster_images buildah
fi
export E2E_HELM E2E_LOGS=$root/dist/e2e/logs
E2E_HELM=$(scripts/helm.sh)
rm -rf "$E2E_LOGS"
go -C conformance test -count 1 -timeout 55m -v ./e2e -shuffle "${SHUFFLE:-off}" "$@"
