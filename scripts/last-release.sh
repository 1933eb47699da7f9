#!/usr/bin/env bash
# Builds images and chart of the newest release in docs/releases.json again, from its commit and with its own release command, compares
# their checksums with the list, and prints their directory. If a shallow clone does not have the commit, it says so and prints nothing.
# usage: last-release.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need git=git
need_go
commit=$(sed -n '/"commit":/{s/.*"commit": "\([0-9a-f]*\)".*/\1/p;q;}' "$root/docs/releases.json")
[ -n "$commit" ] || refuse "docs/releases.json names no commit" "scripts/release.sh record adds a release to it."
if ! git -C "$root" cat-file -e "$commit^{commit}" 2>/dev/null && [ "$(git -C "$root" rev-parse --is-shallow-repository)" = true ]; then
	say "this shallow clone does not have commit $commit of the last release; get it by: git fetch --unshallow"
	exit
fi
made=$root/dist/e2e/releases/$commit
once "$made" "the last release again" "$root/scripts/release.sh" rebuild --dir >&2
echo "$made"
