#!/usr/bin/env bash
# Runs every fuzz target for some time, one after the other, also after one has failed. usage: fuzz.sh [TIME, default 10s [go test flags]]
#        fuzz.sh --list lists them; TARGETS=Fuzz1,Fuzz2 runs only those
#        PACKETS=100000 [SEED=1] fuzz.sh only sends that many random packets with each backend. Their settings come from the seeds from SEED
#        on. Without SEED it chooses one and prints it
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

# traffic PACKETS|TIME: with each backend
traffic() {
	local seed=${SEED:-$((RANDOM << 15 | RANDOM))}
	printf '== TestRandomTraffic in plugin/netfilter: PACKETS=%s SEED=%s\n' "$1" "$seed"
	PACKETS=$1 SEED=$seed go test -count 1 -timeout 0 -v -run '^TestRandomTraffic$' ./plugin/netfilter
}
if [ -n "${PACKETS:-}" ]; then
	traffic "$PACKETS"
	exit
fi
time=${1:-10s}
[ $# -eq 0 ] || shift
status=0
while IFS=: read -r file target; do
	[[ -z ${TARGETS:-} || ,$TARGETS, == *,$target,* ]] || continue
	if [ "$target" = FuzzTraffic ]; then # TestRandomTraffic says why; 3000x is a number of packets, not of inputs
		traffic "${time%x}" || status=1
		continue
	fi
	printf '== %s in %s\n' "$target" "${file%/*}"
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$@" "./${file%/*}" || status=1
done < <(list)
exit $status
