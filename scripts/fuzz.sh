#!/usr/bin/env bash
# Runs every fuzz target for a while, one after the other. usage: fuzz.sh [TIME, default 10s [go test flags]]
#        fuzz.sh --list shows them; TARGETS=Fuzz1,Fuzz2 runs only those
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
list() { grep -rHoE --include='*_test.go' '^func Fuzz[A-Za-z0-9]+' . | sed 's#^\./##; s#func ##' | sort; }
if [ "${1:-}" = --list ]; then
	list
	exit
fi
need_root
need_go
need nft=nftables iptables-nft=iptables
time=${1:-10s}
[ $# -eq 0 ] || shift
while IFS=: read -r file target; do
	[[ -z ${TARGETS:-} || ,$TARGETS, == *,$target,* ]] || continue
	printf '== %s in %s\n' "$target" "${file%/*}"
	its=$time
	# it sends packets: for each input at least 60 by each backend
	case $target:$time in FuzzTraffic:*x) its=$((${time%x} / 60 + 1))x ;; esac
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$its" "$@" "./${file%/*}"
done < <(list)
