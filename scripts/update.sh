#!/usr/bin/env bash
# Moves every module of the repository to the newest versions of what it requires itself, all of them to one version of Go, and golangci-lint to
# its newest. Read what has changed, and run everything after it. With MODULE... only those directories. usage: update.sh [MODULE...]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go

# direct MODULE: what a module requires itself, and those of its tools; not what is replaced or another module of this repository
direct() {
	go -C "$1" list -m -f '{{if not (or .Main .Indirect .Replace)}}{{.Path}}{{end}}' all 2>/dev/null
}

# newest PATH: its newest version that is no pre-release
newest() { go list -m -f '{{.Version}}' "$1@latest"; }

update() {
	local path paths=() version
	say "$1"
	if [ "$1" = conformance/kubernetes ]; then # whose staging modules are replaced by those of the same release
		version=$(newest k8s.io/kubernetes)
		go -C "$1" list -m -f '{{with .Replace}}{{$.Path}} {{.Path}}{{end}}' all | while read -r path by; do
			go -C "$1" mod edit -replace "$path=$by@v0.${version#v1.}"
		done
		paths=("k8s.io/kubernetes@$version")
	else
		for path in $(direct "$1"); do
			if [ "$path" = istio.io/istio ]; then continue; fi # a commit of its main branch: see its go.mod
			paths+=("$path@latest")
		done
	fi
	go -C "$1" get "${paths[@]}"
	go -C "$1" mod tidy
}

modules=("$@")
if [ ${#modules[@]} = 0 ]; then
	# The drivers of CRI-O are built with the libcni of a release on purpose.
	mapfile -t modules < <(git ls-files go.mod '*/go.mod' | grep -v '^conformance/crio/' | sed 's|/\{0,1\}go\.mod$||; s|^$|.|')
	lint=$(newest github.com/golangci/golangci-lint/v2)
	sed -i "s/^version=v.*/version=$lint/" scripts/lint.sh
fi
for module in "${modules[@]}"; do update "$module"; done
# what one of them asks for, all have
version=$(git ls-files go.mod '*/go.mod' | xargs sed -n 's/^go //p' | sort -V | tail -n 1)
git ls-files go.mod '*/go.mod' | while read -r file; do go mod edit -go "$version" "$file"; done
git diff --stat
