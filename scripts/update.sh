#!/usr/bin/env bash
# Moves every module of the repository to the newest versions of what it requires itself, all of them to one version of Go and of each module
# that several of them require, golangci-lint and govulncheck to their newest, and what makes the site too. Read what has changed, and run
# everything after it. With MODULE... only those directories. usage: update.sh [MODULE...]
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
need python3=python3

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
			case $path in
			istio.io/istio) continue ;;               # a commit of its main branch: see its go.mod
			github.com/sigstore/sigstore) continue ;; # as long as docs/decisions.md says so
			esac
			paths+=("$path@latest")
		done
	fi
	go -C "$1" get "${paths[@]}"
	go -C "$1" mod tidy
}

# pinned_in FILE PATH: moves the version that a script pins of a program to its newest
pinned_in() {
	local version
	version=$(newest "$2")
	sed -i "s/^version=v.*/version=$version/" "$1"
}

# site: what makes the site, and all that it needs, each with the digest of every file that there is of it
site() {
	local pins=scripts/site/requirements.txt
	say "$pins"
	need_pip
	python3 -m pip --disable-pip-version-check install --quiet --no-cache-dir --root-user-action ignore --target "$work/pip-tools" pip-tools
	echo mkdocs-material | PYTHONPATH=$work/pip-tools python3 -m piptools compile --quiet --upgrade --generate-hashes --no-header \
		--no-emit-index-url --no-emit-find-links --strip-extras --annotation-style=line --output-file "$work/pins" -
	{
		grep '^#' $pins
		sed 's/^    # via -r -$/    # what is asked for/' "$work/pins"
	} >"$work/$(basename $pins)"
	cp "$work/$(basename $pins)" $pins
}

# apart MODULE...: a line "MODULE PATH@VERSION..." for each that requires something at a lower version than another of them
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

# align MODULE...: what several of them require, all require at the highest of these versions (TestModulesAgree)
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
	pinned_in scripts/lint.sh github.com/golangci/golangci-lint/v2
	pinned_in scripts/vulncheck.sh golang.org/x/vuln
	site
fi
for module in "${modules[@]}"; do update "$module"; done
# what one of them asks for, all have
version=$(git ls-files go.mod '*/go.mod' | xargs sed -n 's/^go //p' | sort -V | tail -n 1)
git ls-files go.mod '*/go.mod' | while read -r file; do go mod edit -go "$version" "$file"; done
align "${all[@]}"
git diff --stat
