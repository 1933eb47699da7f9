#!/usr/bin/env bash
# A mesh on this machine, to try things on: the cluster of scripts/cluster.sh with Istio, this tree's controller, and a shop of four
# services. up starts it, shows with commands and their output that it works, and leaves it running. Its exit status is 0 only if everything
# was right. down stops it. docs/getting-started-istio.md does the same on the reader's cluster.
# usage: mesh.sh up | down
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
dir=$cache/cluster
name=istio-pod-network-controller

bold='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR:-}" ]; then bold=$'\e[1m' plain=$'\e[0m'; fi

title() { printf '\n%s%s%s\n' "$bold" "$*" "$plain"; }
text() { printf '   %s\n' "$@"; }

# show COMMAND...: prints a command in a form that can be pasted
show() {
	local word line=
	for word in "$@"; do
		case $word in
		*[\ \'\"\{\}\[\]\(\)\;\&\|\<\>\*\?\$\\]*) line+=" '$word'" ;;
		*) line+=" $word" ;;
		esac
	done
	printf '   %s$%s%s\n' "$bold" "$line" "$plain"
}

# quietly COMMAND...: prints and runs a command, and prints its output only if it fails
quietly() {
	local output
	show "$@"
	output=$("$@" 2>&1) || refuse "that failed, and the cluster is left as it is" "$output"
}

wrong=0

# expect yes|no WHAT COMMAND...: prints and runs a command, and prints its output. It has to succeed (yes) or fail (no), and to print WHAT.
# The command is repeated, because settings of Istio take a moment to reach the sidecars.
expect() {
	local want=$1 what=$2 output='' got=''
	shift 2
	show "$@"
	for _ in {1..60}; do
		if output=$("$@" 2>&1); then got=yes; else got=no; fi
		if [ $got = "$want" ] && [[ $output == *"$what"* ]]; then break; fi
		got=
		sleep 1
	done
	printf '%s\n' "$output" | grep -v '^command terminated with exit code' | sed 's/^/   /'
	[ -z "$got" ] || return 0
	wrong=$((wrong + 1))
	text "NOT AS IT SHOULD BE: it should have $([ "$want" = yes ] && echo succeeded || echo failed) and said: $what"
}

programs() {
	helm=$(scripts/helm.sh)
	kubernetes=$(scripts/kubernetes.sh kubectl)
	export PATH=$kubernetes:$helm:$PATH KUBECONFIG=$dir/kubeconfig
}

install() {
	title "1. The controller, before the first pod of the mesh"
	quietly helm4 install $name ./chart/$name -n $name --create-namespace --wait
	title "2. Istio: its own charts, with the init wait in the place of istio-validation (docs/istio/wait.yaml)"
	quietly helm4 install istio-base "$dir/charts/base" -n istio-system --create-namespace
	quietly helm4 install istiod "$dir/charts/istio-control/istio-discovery" -n istio-system -f "$dir/istio.yaml" -f docs/istio/wait.yaml \
		--set-string pilot.env.ISTIO_DUAL_STACK=true --set-string meshConfig.defaultConfig.proxyMetadata.ISTIO_DUAL_STACK=true --wait
	quietly kubectl create namespace istio-ingress
	quietly kubectl label namespace istio-ingress pod-security.kubernetes.io/enforce=restricted
	quietly helm4 install gateway "$dir/charts/gateway" -n istio-ingress -f docs/istio/gateway.yaml --set imagePullPolicy=IfNotPresent \
		--set autoscaling.enabled=false --set resources.requests.cpu=10m --set resources.requests.memory=64Mi --wait
	title "3. A shop of four services, under Pod Security restricted, and a visitor who is outside the mesh"
	quietly kubectl create namespace shop
	quietly kubectl label namespace shop istio-injection=enabled pod-security.kubernetes.io/enforce=restricted
	quietly kubectl create namespace outside
	quietly helm4 install shop ./conformance/shop/chart -n shop --wait
	quietly helm4 install visitor ./conformance/shop/chart -n outside --set 'roles={visitor}' --set mesh=false --wait
}

# Columns of kubectl get pods. The marks are annotations, whose names have dots.
mark='.metadata.annotations.pod-network-controller\.istio\.io'
containers="POD:.metadata.name,INIT:.spec.initContainers[*].name,CONTAINERS:.spec.containers[*].name"
marks="MARK:$mark/status,REASON:$mark/reason"

look() {
	local visitor=(kubectl -n outside exec deploy/visitor -- /shop) page=(kubectl -n shop exec deploy/page -c shop -- /shop)
	title "4. The pods: no istio-init, in a namespace of Pod Security restricted, and the agent has marked that their network is initialized"
	expect yes initialized kubectl -n shop get pods -o custom-columns="$containers,$marks"
	text "The gateway is a proxy and no sidecar. It is left alone, and the mark says so:"
	expect yes proxy-type kubectl -n istio-ingress get pods -o custom-columns="$containers,$marks"

	title "5. A request from outside, through the gateway and all four services; each says whose certificate its sidecar has seen"
	expect yes '"service": "ratings"' "${visitor[@]}" get http://gateway.istio-ingress/

	title "6. A picture of twenty such requests"
	expect yes "20 × ─► ratings" "${visitor[@]}" visit -n 20 http://gateway.istio-ingress/

	title "7. What is not let through, each beside what is"
	text "Plain text, past the gateway: the services demand a certificate of the mesh (STRICT)."
	expect no "no answer" "${visitor[@]}" get http://page.shop:8080/
	text "The page may call reviews, but not ratings (AuthorizationPolicy)."
	expect no "403 Forbidden" "${page[@]}" get http://ratings:8080/
	expect yes "200 OK" "${page[@]}" get http://reviews:8080/
	text "The shop may call nobody but itself (REGISTRY_ONLY). The visitor reaches itself; the page does not reach it."
	expect yes "200 OK, from no proxy" "${visitor[@]}" get http://visitor.outside:8080/
	expect no "502 Bad Gateway" "${page[@]}" get http://visitor.outside:8080/
}

up() {
	need_root
	scripts/cluster.sh up mesh
	programs
	install
	look
	[ $wrong = 0 ] ||
		refuse "$wrong of the commands above did not do what they should" "The cluster is left as it is; make mesh-down takes it down."
	title "All of it was as it should be. The cluster is yours:"
	cat <<-HOWTO

		  export KUBECONFIG=$dir/kubeconfig
		  export PATH=$dir/bin:\$PATH
		  kubectl get pods -A
		  kubectl -n shop exec deploy/page -c istio-proxy -- pilot-agent request GET certs
		  kubectl -n $name logs daemonset/istio-pod-network-agent

		docs/getting-started-istio.md does the same on your own cluster. make mesh-down takes all of it down.
	HOWTO
}

case $* in
up) up ;;
down) exec scripts/cluster.sh down ;;
*) refuse "wrong usage: ${*:-nothing} instead of up or down" "scripts/mesh.sh up | down" 2 ;;
esac
