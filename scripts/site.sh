#!/usr/bin/env bash
# Makes the documentation a static site in dist/site, by mkdocs-material at the version that scripts/site/requirements.txt pins, which is
# taken once from the Python package index, by its digests. The site is complete: it asks no other host for anything, and may be opened as
# files. A link to a page or a heading that is not there fails. usage: site.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need python3=python3 git=git
need_pip
pages=dist/site-pages
mkdocs=$cache/mkdocs-$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')-$(sha256sum <scripts/site/requirements.txt | cut -c1-12)
install() {
	python3 -m pip --disable-pip-version-check install --quiet --no-deps --only-binary :all: --require-hashes --no-compile \
		--root-user-action ignore -r scripts/site/requirements.txt --target "$1" >&2
}
once "$mkdocs" "mkdocs-material" install

rm -rf $pages dist/site
mkdir -p $pages
git ls-files -z -- README.md CONTRIBUTING.md CHANGELOG.md SECURITY.md 'docs/*.md' docs/pictures 'chart/*/README.md' |
	xargs -0 cp --parents -t $pages
cp scripts/site/site.css $pages
SITE_VERSION="Of the version $(git describe --tags --always --dirty) of the tree" SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
export SITE_VERSION SOURCE_DATE_EPOCH
# A quiet mkdocs does not count what strict mode is to refuse.
if ! NO_MKDOCS_2_WARNING=1 PYTHONPATH=$mkdocs python3 -m mkdocs --no-color build -f scripts/site/mkdocs.yml >dist/site.log 2>&1; then
	grep -v '^INFO' dist/site.log >&2
	refuse "mkdocs does not take the pages as they are" "All that it says is in dist/site.log."
fi

# What a browser fetches by itself is of the site.
if grep -rnoE --include '*.html' '<(script|link|img|iframe|source)[^>]* (src|href)="?(https?:)?//[^">]*' dist/site ||
	grep -rnoE --include '*.css' '(@import +|url\()["'"'"']?(https?:)?//[^)]*' dist/site; then
	refuse "these have a reader's browser ask another host" "See scripts/site/mkdocs.yml."
fi
say "dist/site/index.html, $(find dist/site -name '*.html' | wc -l) pages"
