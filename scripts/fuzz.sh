#!/usr/bin/env bash
# Runs every fuzz target for some time, one after the other, also after one has failed. usage: fuzz.sh [TIME, default 10s [go test flags]]
#        fuzz.sh --list lists them; TARGETS=Fuzz1,Fuzz2 runs only those
#        fuzz.sh --summary LOG makes a table of what a run has printed
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
if [ "${1:-}" = --summary ]; then
	[ -r "${2:-}" ] || refuse "LOG: cannot read \"${2:-}\"" "Valid: a file with what fuzz.sh has printed." 2
	awk 'function row() {
			if (target != "") printf "%-48s %-13s %8s  %s\n", target, result, took, tried
			target = ""
		}
		BEGIN {printf "%-48s %-13s %8s  %s\n", "fuzz target", "result", "time", "tried"}
		/^== / {
			row()
			target = $2 " in " $4; sub(/[:,]$/, "", target)
			result = "did not end"; took = tried = "-"; packets = 0
			seed = /SEED=/ ? " from " $NF " on" : ""
		}
		/^fuzz: elapsed: .* execs: / {tried = $0; sub(/.* execs: /, "", tried); sub(/ .*/, " inputs", tried)}
		/: [0-9]+ packets, / {packets += $3; tried = packets " packets" seed}
		/^fuzz.sh: no input of / {result = "ok"}
		/^(ok|FAIL)[ \t]+[^ \t]+[ \t]/ {result = $1 == "ok" ? "ok" : "FAILED"; took = $3 ~ /s$/ ? sprintf("%d s", $3) : "-"}
		END {row()}' "$2"
	exit
fi
need_root
need_go
need nft=nftables iptables-nft=iptables

# traffic PACKETS|TIME: with each backend
traffic() {
	local seed=${SEED:-$((RANDOM << 15 | RANDOM))}
	printf '== FuzzTraffic in plugin/netfilter, as TestRandomTraffic: PACKETS=%s SEED=%s\n' "$1" "$seed"
	PACKETS=$1 SEED=$seed go test -count 1 -timeout 0 -v -run '^TestRandomTraffic$' ./plugin/netfilter
}
if [ -n "${PACKETS:-}" ]; then
	traffic "$PACKETS"
	exit
fi
time=${1:-10s}
[ $# -eq 0 ] || shift
output=$(mktemp)
trap 'rm -f "$output"' EXIT

# over: whether all that has failed is that the time was over. On a busy machine Go 1.26 takes that for a failure of the target now and then
# (https://go.dev/issue/75804, mended in 1.27)
over() {
	awk '/^--- FAIL: / {failed++; next} failed && /^FAIL$/ {done = 1} failed && !done {lines++; of += $0 == "    context deadline exceeded"}
		END {exit !(failed == 1 && done && lines == 1 && of == 1)}' "$output"
}

# fuzz TARGET DIRECTORY [go test flags]
fuzz() {
	local target=$1 dir=$2
	shift 2
	go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$@" "./$dir" 2>&1 | tee "$output" && return
	over || return 1
	echo "fuzz.sh: no input of $target has failed, the time was over"
}

status=0
while IFS=: read -r file target; do
	[[ -z ${TARGETS:-} || ,$TARGETS, == *,$target,* ]] || continue
	if [ "$target" = FuzzTraffic ]; then # TestRandomTraffic says why; 3000x is a number of packets, not of inputs
		traffic "${time%x}" || status=1
		continue
	fi
	printf '== %s in %s\n' "$target" "${file%/*}"
	fuzz "$target" "${file%/*}" "$@" || status=1
done < <(list)
exit $status
