#!/usr/bin/env bash
# The long run: pods of all kinds come and go on the cluster of the end-to-end tests under all faults. At the same time every fuzz target
# runs, one after the other.
# usage: soak.sh [DURATION such as 90m or 1h, default 1h]; SEED=N repeats a sequence of faults. With SANDBOXES=10000, that many sandboxes
# come and go through the runtime's CRI, without a kubelet, and nothing else runs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
need_go
if [ -n "${SANDBOXES:-}" ]; then
	[[ $SANDBOXES =~ ^[1-9][0-9]{0,8}$ ]] || refuse "SANDBOXES: invalid value \"$SANDBOXES\"" "Valid: a whole number from 1 on." 2
	E2E_SANDBOXES=$SANDBOXES exec scripts/e2e.sh -run 'TestSandboxes' -timeout "$((3600 + 4 * SANDBOXES))s"
fi
duration=${1:-1h}
[[ $duration =~ ^[1-9][0-9]{0,4}[hm]$ ]] ||
	refuse "DURATION: invalid value \"$duration\"" "Valid: whole hours or minutes, such as 1h or 90m." 2
case $duration in
*h) seconds=$((${duration%h} * 3600)) ;;
*m) seconds=$((${duration%m} * 60)) ;;
esac
log=$root/dist/soak/fuzz.log
mkdir -p "${log%/*}"
targets=$(scripts/fuzz.sh --list | wc -l)
say "fuzzing $targets targets for $((seconds / targets)) s each; log in $log"
set -m # a process group of its own, but the same session: between sessions a nice value counts nothing (sched_autogroup_enabled)
nice -n 19 scripts/fuzz.sh "$((seconds / targets + 1))s" -parallel 1 >"$log" 2>&1 </dev/null &
fuzz=$!
set +m
trap 'kill -TERM -- "-$fuzz" 2>/dev/null || true' EXIT
trap 'exit 130' INT TERM HUP
status=0
E2E_SOAK=$duration FAULTS='' scripts/e2e.sh -run 'TestAgentAwayForLong|TestSoak' -timeout "$((seconds + 4 * 3600))s" || status=1
say "waiting for the fuzzer"
wait "$fuzz" || status=1
scripts/fuzz.sh --summary "$log"
exit $status
