#!/usr/bin/env bash
# Runs every fuzz target for a while, one after the other. usage: fuzz.sh [TIME, default 10s]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
time=${1:-10s}
while IFS=: read -r file target; do
	printf '== %s in %s\n' "$target" "${file%/*}"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./${file%/*}"
done < <(grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | sed 's#^\./##; s#func ##' | sort)
