#!/usr/bin/env bash
# Looks for known vulnerabilities in what the programs call, with govulncheck, built once into the cache. The database is at GOVULNDB. If it
# cannot be reached, the script says so and succeeds, unless VULNCHECK=required.
# usage: vulncheck.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
version=v1.9.0
bin=$cache/govulncheck-$version
install() { GOBIN=$1 go install "golang.org/x/vuln/cmd/govulncheck@$version"; }
once "$bin" "govulncheck $version" install
status=0
for module in . scripts/images scripts/release; do
	output=$("$bin/govulncheck" -C "$module" ${GOVULNDB:+-db "$GOVULNDB"} ./... 2>&1) || status=$?
	printf '%s\n' "$output"
	case $status in
	0) ;;
	3) refuse "there are vulnerabilities; see above" "make update moves to newer versions." ;;
	*)
		if [ "${VULNCHECK:-}" != required ] && grep -q 'fetching vulnerabilities' <<<"$output"; then
			say "the database cannot be reached, so nothing is known"
			exit 0
		fi
		exit $status
		;;
	esac
done
