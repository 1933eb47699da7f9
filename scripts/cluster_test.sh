#!/usr/bin/env bash
# Uses make cluster as a person does: starts the cluster, pastes the commands that it prints and those of README.md from the second step on,
# loads images, runs apps from them, and stops it. A fake docker has the images.
# usage: cluster_test.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
need_go
work=$(mktemp -d)
up=
trap '[ -z "$up" ] || make cluster-down; rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

# step WHAT: prints a heading, which .ci/run shows meanwhile
step() { echo "== $1"; }

# paste COMMANDS...: runs each as in a person's shell
paste() {
	printf '$ %s\n' "$*"
	PATH=$work/bin:$PATH bash -euo pipefail -c "$(cat "$work/exports" 2>/dev/null)
$*"
}

# expect WHAT PATTERN COMMANDS...: pastes them, and checks that their output matches the pattern
expect() {
	local output
	output=$(paste "${@:3}" 2>&1) || refuse "$1: that failed" "$output"
	printf '%s\n' "$output"
	grep -q -- "$2" <<<"$output" || refuse "$1: there is no \"$2\" in what is above" "${*:3}"
}

# block STEP: prints the commands of that step of README.md
block() {
	awk -v step="**$1. " '/^## / {here = $0 == "## Install on a cluster"} here && /^\*\*/ {mine = index($0, step) == 1}
		/^```/ {code = $0 == "```sh"; next} here && mine && code' README.md
}

step "make cluster"
up=yes
make cluster 2> >(tee "$work/tells" >&2) | tee "$work/says"
grep -q "^cluster.sh: [0-9]* s: building what the cluster needs" "$work/tells" || refuse "it does not tell how far it is" "See above."
! grep -q istiod "$work/tells" || refuse "it builds Istio, which nobody asked for" "See above."
sed -n 's/^  //p' "$work/says" | grep -v '^docker \|^scripts/cluster.sh load' >"$work/commands" || true
grep '^export' "$work/commands" >"$work/exports" || refuse "make cluster has not said how to use it" "See above."
grep -v '^export' "$work/commands" >"$work/rest"
for command in "kubectl get nodes" "helm install" "helm test" "istio-pod-networkctl status"; do
	grep -q "^$command" "$work/rest" || refuse "make cluster does not name $command" "See above."
done

step "what it says"
expect "the commands that make cluster prints" "^Phase: *Succeeded" "$(cat "$work/rest")"
expect "both nodes are well" "^2 nodes: 2 well, 0 not well, 0 not asked" "istio-pod-networkctl status"

step "what README.md says"
remove=$(tr '\n\140' ' \n' <README.md | grep '^helm uninstall ') # in a sentence, between backquotes
expect "the removal" "^release .* uninstalled" "$remove"
expect "the second step" "^Phase: *Succeeded" "$(block 2)"
expect "the third step" "^2 nodes: 2 well, 0 not well, 0 not asked" "$(block 3)"

step "an image, and an app"
mkdir "$work/bin" "$work/app"
scripts/images.sh --builder none --version trial --output "$work/images" >/dev/null 2>"$work/images.log" ||
	refuse "the images could not be built" "$(tail -n 20 "$work/images.log")"
printf '#!/bin/sh\n[ "$*" = "save app:1" ] && cat %s/images/istio-pod-network-plugin.tar\n' "$work" >"$work/bin/docker"
chmod 755 "$work/bin/docker"
cat >"$work/app/main.go" <<'END'
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	fmt.Println("the app is up")
	end := make(chan os.Signal, 1)
	signal.Notify(end, syscall.SIGTERM)
	<-end
}
END
go build -o "$work/app/app" "$work/app/main.go"
load=$(sed -n 's/^  \(docker .*\)/\1/p' "$work/says")
expect "an archive from docker" "on both nodes" "$load"
expect "a program" "on both nodes: app:1" "scripts/cluster.sh load $work/app/app app:1"
paste "kubectl run loaded --image=istio-pod-network-plugin:trial --restart=Never --command -- /istio-pod-network-flows --help"
paste "kubectl wait pod/loaded --for=jsonpath={.status.phase}=Succeeded --timeout=2m"
expect "the image that was loaded" "^  --families" "kubectl logs loaded"
paste "kubectl run app --image=app:1"
paste "kubectl wait pod/app --for=condition=Ready --timeout=2m"
expect "the app" "^the app is up$" "kubectl logs app"

step "what is refused"
if make cluster >"$work/again" 2>&1; then refuse "a second cluster came up" "$(cat "$work/again")"; fi
grep -q "it is up already: export KUBECONFIG=" "$work/again" || refuse "a second cluster is refused otherwise" "$(cat "$work/again")"
if scripts/cluster.sh load "$work/nothing" >"$work/again" 2>&1; then refuse "a file was loaded that is not there" "$(cat "$work/again")"; fi

step "make cluster-down"
pid=$(cat "$cache/cluster/pid")
make cluster-down
up=
readlink "/proc/$pid/exe" >/dev/null && refuse "process $pid of the cluster is still there" "See ps." # a process that has ended has none
[ ! -e "$cache/cluster" ] || refuse "$cache/cluster is still there" "$(ls "$cache/cluster")"
if scripts/cluster.sh load "$work/app/app" app:1 >"$work/again" 2>&1; then
	refuse "something was loaded into no cluster" "$(cat "$work/again")"
fi
grep -q "there is no cluster to load it into" "$work/again" || refuse "that is refused otherwise" "$(cat "$work/again")"
make cluster-down 2>&1 | grep -q "there is none"
echo "ok  	make cluster"
