#!/usr/bin/env bash
# Makes the documentation a static site in dist/site, from this tree and from each release in docs/releases.json, with mkdocs-material. The
# version in scripts/site/requirements.txt is downloaded once from the Python package index, with its digests. The site is complete: its
# pages load nothing from other hosts, and can be opened as files. A link to a page or heading that does not exist is an error.
# usage: site.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need python3=python3 git=git
need_pip
mkdocs=$cache/mkdocs-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
mkdocs+=-$(sha256sum <scripts/site/requirements.txt | cut -c1-12)
install() {
	python3 -m pip --disable-pip-version-check install --quiet --no-deps --only-binary :all: --require-hashes --no-compile \
		--root-user-action ignore -r scripts/site/requirements.txt --target "$1" >&2
}
once "$mkdocs" "mkdocs-material" install

# build TREE VERSION COMMIT: builds the pages of a tree, with the tree's own settings
build() {
	rm -rf "$1/dist/site-pages"
	mkdir -p "$1/dist/site-pages"
	(cd "$1" && find README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md docs/*.md docs/pictures/*.svg chart/*/README.md -print0 |
		xargs -0 cp --parents -t dist/site-pages)
	cp "$1/scripts/site/site.css" "$1/dist/site-pages"
	SITE_VERSION="$2, of $(git rev-parse --short "$3")" SOURCE_DATE_EPOCH=$(git log -1 --format=%ct "$3")
	export SITE_VERSION SOURCE_DATE_EPOCH
	# With --quiet, strict mode would not see the warnings.
	if ! NO_MKDOCS_2_WARNING=1 PYTHONPATH=$mkdocs python3 -m mkdocs --no-color build -f "$1/scripts/site/mkdocs.yml" \
		--site-dir "$root/dist/site/$2" >dist/site.log 2>&1; then
		grep -v '^INFO' dist/site.log >&2
		refuse "mkdocs does not take the pages of $2 as they are" "All that it says is in dist/site.log."
	fi
}

rm -rf dist/site
mkdir -p dist
trees=$(mktemp -d)
trap 'rm -rf "$trees"' EXIT
trap 'exit 130' INT TERM HUP
versions=()
# This tree, and the releases with settings of the site, the newest first.
while read -r version commit; do
	git cat-file -e "$commit:scripts/site/mkdocs.yml" 2>/dev/null || continue
	mkdir -p "$trees/$version"
	git archive "$commit" | tar -x -C "$trees/$version"
	build "$trees/$version" "$version" "$commit"
	versions+=("$version")
done < <(python3 -c 'import json
for r in json.load(open("docs/releases.json"))["releases"]: print(r["version"], r["commit"])' | sort -Vr)
build . next HEAD
versions+=(next)
# What the version selector in each page reads, and a page that leads to the newest version.
python3 -c 'import json, sys
print(json.dumps([{"version": v, "title": v, "aliases": []} for v in sys.argv[1:]]))' "${versions[@]}" >dist/site/versions.json
newest=${versions[0]}
echo "<!doctype html><meta http-equiv=refresh content='0; url=$newest/index.html'><a href='$newest/index.html'>$newest</a>" \
	>dist/site/index.html

# What a browser loads by itself comes from the site.
if grep -rnoE --include '*.html' '<(script|link|img|iframe|source)[^>]* (src|href)="?(https?:)?//[^">]*' dist/site ||
	grep -rnoE --include '*.css' '(@import +|url\()["'"'"']?(https?:)?//[^)]*' dist/site; then
	refuse "these have a reader's browser ask another host" "See scripts/site/mkdocs.yml."
fi
say "dist/site/index.html, $(find dist/site -name '*.html' | wc -l) pages of ${versions[*]}"
