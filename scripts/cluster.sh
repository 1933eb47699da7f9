#!/usr/bin/env bash
# A Kubernetes cluster of two nodes on this machine, for a person to try things on: up brings it up and prints how to use it, down takes
# it down. It lives in namespaces of its own with no route out, and its API server answers on loopback. usage: cluster.sh up [mesh] | down
# With mesh it also has what scripts/mesh.sh installs, and how to use it is left to that.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_root
dir=$cache/cluster

# running: whether the cluster's process is still that
running() {
	[ -e "$dir/pid" ] && grep -q playground "/proc/$(cat "$dir/pid")/cmdline" 2>/dev/null
}

up() {
	! running || refuse "it is up already: export KUBECONFIG=$dir/kubeconfig" "make cluster-down takes it down."
	mesh=()
	[ "${1:-}" != mesh ] || mesh=(-mesh)
	need_node_programs
	need_go
	cluster_images buildah
	helm=$(scripts/helm.sh)
	programs=$(scripts/kubernetes.sh kubectl)
	rm -rf "$dir"
	mkdir -p "$dir"
	go -C conformance build -o "$cache/playground" ./playground
	setsid "$cache/playground" "${mesh[@]}" "$dir" "$E2E_IMAGES"/*/*.tar >"$cache/cluster.log" 2>&1 </dev/null &
	echo $! >"$dir/pid"
	say "bringing it up; the log is $cache/cluster.log"
	until [ -e "$dir/kubeconfig" ]; do
		# by its number alone: for a moment it still has the name of this script
		kill -0 "$(cat "$dir/pid")" 2>/dev/null || refuse "it did not come up" "$(tail -n 20 "$cache/cluster.log")"
		sleep 0.2
	done
	[ ${#mesh[@]} = 0 ] || return 0
	cat <<-HOWTO
		The cluster is up: nodes node-current (current containerd) and node-debian (Debian's).

		  export KUBECONFIG=$dir/kubeconfig
		  export PATH=$programs:$helm:\$PATH
		  kubectl get nodes
		  helm4 install istio-pod-network-controller ./chart/istio-pod-network-controller \\
		    --namespace istio-pod-network-controller --create-namespace --wait
		  helm4 test istio-pod-network-controller --namespace istio-pod-network-controller

		The images of this tree are on both nodes under the names that the chart has. make cluster-down takes all of it down.
	HOWTO
}

down() {
	running || { rm -rf "$dir"; say "there is none"; return; }
	pid=$(cat "$dir/pid")
	kill "$pid"
	while running; do sleep 0.1; done
	say "it is down"
}

case $* in
up | "up mesh" | down) "$@" ;;
*) refuse "wrong usage: ${*:-nothing} instead of up or down" "scripts/cluster.sh up [mesh] | down" 2 ;;
esac
