#!/usr/bin/env bash
# Tests what scripts share, in a cache and a directory of their own. usage: lib_test.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export XDG_CACHE_HOME=$work/cache
cache=$work/cache/istio-pod-network
mkdir -p "$cache"
failed=0

fail() {
	echo "--- FAIL: $1"
	sed 's/^/    /' "$work/output"
	failed=1
}

# expect WHAT CONDITION...: fails unless the condition holds
expect() {
	local what=$1
	shift
	"$@" || fail "$what"
}

# script NAME: a script that sources lib.sh, from standard input
script() {
	{
		printf '#!/usr/bin/env bash\nset -euo pipefail\nroot=%q\n. %q\n' "$root" "$root/scripts/lib.sh"
		cat
	} >"$work/$1"
	chmod 755 "$work/$1"
}

# run COMMAND...: its status, and what it says is in the file output
run() {
	status=0
	"$@" >"$work/output" 2>&1 || status=$?
}

# waited_for LOCK: whether somebody waits for it, as /proc/locks has it
waited_for() { grep -q -- "-> FLOCK .*:$(stat -c %i "$1") " /proc/locks; }

# shellcheck disable=SC2317 # expect calls it
says() { grep -q "$1" "$work/output"; }

script good <<'END'
build() { echo built >>"$cache/times"; echo "$1" >"$2"; }
once "$cache/good" "something good" build contents
END
run "$work/good"
run "$work/good"
expect "a build that succeeds" [ "$status $(cat "$cache/good")" = "0 contents" ]
expect "what is there is not built again" [ "$(wc -l <"$cache/times")" = 1 ]

script bad <<'END'
build() { touch "$1"; false; touch "$cache/went-on"; }
once "$cache/bad" "something bad" build
END
run "$work/bad"
expect "a build that failed is an error" [ $status != 0 ]
expect "what fails in a build ends it" [ ! -e "$cache/went-on" ]
expect "a build that failed leaves nothing" [ ! -e "$cache/bad" ]
expect "a build that failed leaves nothing temporary" [ ! -e "$cache/bad.new" ]
expect "a build that failed says so" says "the build of something bad failed"

script condition <<'END'
build() { false; touch "$1"; }
once "$cache/condition" "something" build || echo "it goes on"
END
run "$work/condition"
expect "once is no part of a condition" [ ! -e "$cache/condition" ]
expect "once in a condition says so" says "Call once by itself"

# One waits for the lock of another's build, as a stage of .ci/run does, when that is ended.
script waits <<'END'
build() { touch "$cache/begun" "$1"; }
once "$cache/waits" "something else" build
touch "$cache/begun"
END
script stages <<END
. "\$root/scripts/stages.sh"
stage waits "" $work/waits
run_stages $work/logs
END
exec 9>"$cache/.lock"
flock 9
"$work/stages" >"$work/output" 2>&1 9>&- &
until waited_for "$cache/.lock"; do sleep 0.1; done
kill -TERM $!
status=0
wait $! || status=$?
exec 9>&-
flock "$cache/.lock" true # after whoever still waited
expect "a stage that waits for another's build ends with all stages" [ $status = 130 ]
expect "no build begins after all were told to end" [ ! -e "$cache/begun" ]

# Versions that cannot be read end a script; a go that fails for one module alone stands for that.
mkdir "$work/bin"
cat >"$work/bin/go" <<'END'
#!/bin/sh
case $* in *"$WITHOUT"*) exit 1 ;; *"list tool"*) echo tool ;; *) echo v1.2.3 ;; esac
END
chmod 755 "$work/bin/go"
for case in cni:containernetworking/cni cni:GOVERSION cni:tool helm:helm/v3 helm:helm/v4 helm:GOVERSION istio:istio.io kubernetes:runc; do
	WITHOUT=${case#*:} PATH=$work/bin:$PATH run "$root/scripts/${case%%:*}.sh"
	expect "scripts/${case%%:*}.sh ends without the version of ${case#*:}" [ $status != 0 ]
done

[ $failed != 0 ] || echo "ok  	scripts"
exit $failed
