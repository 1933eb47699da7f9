#!/usr/bin/env bash
# Builds the programs of a real Kubernetes node, in the versions of the go.mod in conformance/kubernetes, containerd and multus, each once,
# into the cache, and prints their directory.
# usage: kubernetes.sh [PROGRAM...]; without names, all
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
version=$(pinned kubernetes k8s.io/kubernetes)
containerd=$(pinned containerd github.com/containerd/containerd/v2)
runc=$(pinned containerd github.com/opencontainers/runc)
go=$(go env GOVERSION)
dir=$cache/kubernetes-$version-$(locked kubernetes containerd multus)-$go

# build PROGRAM FILE: as released, static and stripped. Without the version's flags its API would report v0.0.0
build() {
	base=k8s.io/component-base/version
	minor=${version#v1.}
	module=kubernetes cgo=0 tags=
	flags="-s -w -X $base.gitVersion=$version -X $base.gitMajor=1 -X $base.gitMinor=${minor%%.*} -X $base.gitTreeState=clean"
	case $1 in
	containerd* | ctr)
		module=containerd package=github.com/containerd/containerd/v2/cmd/$1
		flags="-s -w -X github.com/containerd/containerd/v2/version.Version=$containerd"
		;;
	runc) # seccomp profiles and entering namespaces need C
		need_c
		module=containerd package=github.com/opencontainers/runc
		flags="-s -w -X main.version=${runc#v}"
		cgo=1 tags=seccomp
		;;
	multus* | passthru)
		module=multus package=gopkg.in/k8snetworkplumbingwg/multus-cni.v4/cmd/$1 flags="-s -w"
		[ "$1" != passthru ] || package=$package-cni
		;;
	etcd) package=go.etcd.io/etcd/server/v3 ;;
	*) package=k8s.io/kubernetes/cmd/$1 ;;
	esac
	CGO_ENABLED=$cgo go -C "$root/conformance/$module" build -trimpath -tags "$tags" -o "$2" -ldflags "$flags" "$package"
}

[ $# -gt 0 ] || set -- kube-apiserver etcd kubectl kubelet kube-controller-manager kube-scheduler kube-proxy \
	containerd containerd-shim-runc-v2 ctr runc multus multus-daemon multus-shim passthru
for program in "$@"; do
	once "$dir/$program" "$program" build "$program"
done
echo "$dir"
