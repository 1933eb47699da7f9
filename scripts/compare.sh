#!/usr/bin/env bash
# Measures this project, istio-init, Istio CNI and no redirection, in one cluster with istiod and Envoy, and prints a table. The
# measurements are in dist/compare/state.jsonl. The next run continues an unfinished one.
# usage: compare.sh [flags of conformance/compare, or -help]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
case " $* " in
*" -help "* | *" -table "*) ;;
*)
	need_root
	need_node_programs
	version=$(chart_version)
	export COMPARE_IMAGES=$root/dist/compare/images
	rm -rf "$COMPARE_IMAGES"
	scripts/images.sh --builder none --offline --version "$version" --output "$COMPARE_IMAGES" >&2
	COMPARE_HELM=$(scripts/helm.sh)
	export COMPARE_HELM
	;;
esac
mkdir -p "$cache"
go -C conformance build -o "$cache/compare" ./compare
exec "$cache/compare" "$@" # not by go run, which leaves the program behind when a signal ends go run
