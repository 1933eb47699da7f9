#!/usr/bin/env bash
# A Kubernetes cluster of two nodes on this machine, to try things on. up starts it and prints how to use it. down stops it. It runs in
# namespaces of its own without a route to the outside, and its API server listens on loopback. load loads images into its nodes: from an
# archive as docker save writes it (- is standard input), or with a name, an image of one static program.
# usage: cluster.sh up [mesh] | load ARCHIVE|-|PROGRAM [NAME:TAG] | down
# up mesh is for scripts/mesh.sh: the nodes also get the images of a mesh, and the usage is not printed.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
dir=$cache/cluster

# running: whether the cluster's process is running
running() {
	[ -e "$dir/pid" ] && grep -q playground "/proc/$(cat "$dir/pid")/cmdline" 2>/dev/null
}

up() {
	! running || refuse "it is up already: export KUBECONFIG=$dir/kubeconfig" "make cluster-down takes it down."
	mesh=()
	[ "${1:-}" != mesh ] || mesh=(-mesh)
	need_node_programs
	need_go
	go -C conformance build -o "$cache/playground" ./playground
	[ ${#mesh[@]} = 0 ] || "$cache/playground" -check || exit
	images=$dir.images version=$(chart_version)
	rm -rf "$images"
	say "building the images"
	scripts/images.sh --builder none --version "$version" --output "$images" >/dev/null 2>"$cache/images.log" ||
		refuse "the images could not be built; $cache/images.log ends with:" "$(tail -n 20 "$cache/images.log")"
	helm=$(scripts/helm.sh)
	programs=$(scripts/kubernetes.sh kubectl)
	rm -rf "$dir"
	mkdir -p "$dir/bin"
	ln -s "$programs/kubectl" "$helm/helm3" "$helm/helm4" "$dir/bin/"
	ln -s helm4 "$dir/bin/helm"
	go build -ldflags "-X github.com/istio-pod-network/controller/internal/buildinfo.version=$version" -o "$dir/bin/" \
		./agent/istio-pod-networkctl
	setsid "$cache/playground" "${mesh[@]}" "$dir" "$images"/*.tar >"$cache/cluster.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	say "bringing it up; the log is $cache/cluster.log"
	told=0 begin=$SECONDS
	until [ -e "$dir/kubeconfig" ]; do
		steps=$(sed -n 's/^playground: //p; s/^[a-z]*\.sh: //p' "$cache/cluster.log" | tail -n +$((told + 1)))
		if [ -n "$steps" ]; then
			while read -r step; do say "$((SECONDS - begin)) s: $step"; done <<<"$steps"
			told=$((told + $(wc -l <<<"$steps")))
		fi
		# only by its number: at first the process still has this script's name
		kill -0 "$(cat "$dir/pid")" 2>/dev/null || refuse "it did not come up; $cache/cluster.log ends with:" "$(tail -n 20 "$cache/cluster.log")"
		sleep 0.2
	done
	rm -rf "$images"
	[ ${#mesh[@]} = 0 ] || return 0
	cat <<-HOWTO
		The cluster is up: nodes node-current (current containerd) and node-debian (Debian's).

		  export KUBECONFIG=$dir/kubeconfig
		  export PATH=$dir/bin:\$PATH        # kubectl, helm and istio-pod-networkctl
		  kubectl get nodes
		  helm install istio-pod-network-controller ./chart/istio-pod-network-controller \\
		    --namespace istio-pod-network-controller --create-namespace --wait
		  helm test istio-pod-network-controller --namespace istio-pod-network-controller
		  istio-pod-networkctl status

		The images of this tree are on both nodes under the names that the chart has, and as registry.example.com/mesh/…, so that the commands
		of README.md work as they stand. Give the nodes images of yours, or one of a static program:

		  docker save app:1 | scripts/cluster.sh load -
		  scripts/cluster.sh load ./app app:1

		make mesh brings up a cluster with Istio in it. make cluster-down takes all of it down.
	HOWTO
}

load() {
	running || refuse "there is no cluster to load it into" "make cluster brings one up."
	"$cache/playground" -load "$dir" "$@" || exit
	say "on both nodes${2:+: $2}"
}

down() {
	running || { rm -rf "$dir"; say "there is none"; return; }
	pid=$(cat "$dir/pid")
	kill "$pid"
	while readlink "/proc/$pid/exe" >/dev/null; do sleep 0.1; done # it removes its directory before it ends
	say "it is down"
}

case $* in
up | "up mesh" | down | "load "*) "$@" ;;
*)
	refuse "wrong usage: ${*:-nothing} instead of up, load or down" \
		"scripts/cluster.sh up [mesh] | load ARCHIVE|-|PROGRAM [NAME:TAG] | down" 2
	;;
esac
