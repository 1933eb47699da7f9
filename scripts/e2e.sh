#!/usr/bin/env bash
# Runs the end-to-end tests on a real Kubernetes cluster of two nodes, in namespaces of its own, with the images of the two Dockerfiles and
# the chart. With CLUSTERS=3, three clusters run a third of the tests each at the same time. With ROWS=write, the rows of successful tests
# are written into docs/scenarios.md. With PODS=250, TestFullNode fills its node with that many pods.
# usage: e2e.sh [go test flags, such as -run NAME]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
# shellcheck source=scripts/stages.sh
. scripts/stages.sh
need_root
need_node_programs
need_prometheus
need_go
page=docs/scenarios.md
case ${ROWS:=} in
'') export E2E_ROWS= ;;
write) export E2E_ROWS=$root/$page ;;
*) refuse "ROWS: invalid value \"$ROWS\"" "Valid: write, or nothing." 2 ;;
esac
export E2E_FAULTS=${FAULTS:-} E2E_SEED=${SEED:-} E2E_PODS=${PODS:-}
if [ -n "$E2E_FAULTS${E2E_SOAK:-}" ]; then # one of them changes the clock
	clock=$(mktemp -d)
	trap 'rm -rf "$clock"' EXIT
	GOFLAGS="${GOFLAGS:-} $(scripts/clock.sh "$clock")" cluster_images none
	rm -rf "$clock"
	trap - EXIT
else
	cluster_images buildah
fi
export E2E_HELM
E2E_HELM=$(scripts/helm.sh)
export E2E_RELEASE=
run=
[ "${1:-}" != -run ] || run=${2%%/*}
if [[ TestUpgradeFromRelease =~ $run ]]; then
	E2E_RELEASE=$(scripts/last-release.sh) || say "the last release was not built again, so TestUpgradeFromRelease fails"
fi
logs=$root/dist/e2e/logs
rm -rf "$logs"

# run LOGS FLAG...: runs the tests
run() {
	E2E_LOGS=$1 go -C conformance test -count 1 -timeout 55m -v ./e2e -shuffle "${SHUFFLE:-off}" "${@:2}"
}

# others COUNT: divides the tests into that many parts of about the same duration, by the rows in the page. For each part it prints the
# pattern of the tests that are not in it
others() {
	awk '
		/^Test[^ ]+ +ok +[0-9.]+ s / {
			if (last && index($1, last "/") == 1) next # in the time of the row above
			last = $1
			sub("/.*", "", $1)
			took[$1] += $3
		}
		/^func Test[A-Za-z0-9_]+\(t \*testing/ {sub(/\(.*/, "", $2); tests[$2]}
		END {for (t in tests) print t in took ? took[t] : 20, t}' "$page" conformance/e2e/*_test.go | sort -rn | awk -v count="$1" '
		{
			part = 0
			for (i = 1; i < count; i++) if (sum[i] < sum[part]) part = i
			sum[part] += $1
			for (i = 0; i < count; i++) if (i != part) others[i] = others[i] "|" $2
		}
		END {for (i = 0; i < count; i++) print "^(" substr(others[i], 2) ")$"}'
}

if [ "${CLUSTERS:-1}" = 1 ]; then
	run "$logs" "$@"
	exit
fi
go -C conformance test -c -o /dev/null ./e2e # once, not in each part
parts=$(others "$CLUSTERS")
number=0
while read -r skipped; do
	number=$((number + 1))
	stage "cluster $number" "" run "$logs/$number" -skip "$skipped" "$@"
done <<<"$parts"
[ "$number" = "$CLUSTERS" ] || refuse "CLUSTERS: invalid value \"$CLUSTERS\"" "Valid: a whole number from 1 on." 2
run_stages dist/e2e
