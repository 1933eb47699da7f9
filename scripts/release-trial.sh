#!/usr/bin/env bash
# Makes the release of the commit that is checked out twice, by make release and make release-check, with a key for the occasion and a
# registry on loopback: the bytes have to be the same, and what is changed has to be noticed. What is not committed is not in it. The
# operator's tool is built for linux/amd64 alone. usage: release-trial.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need git=git make=make
need_go
go -C "$root/scripts/release" test -count 1 -v -timeout 30m -run '^TestTree$' . -args -tree "$root"
