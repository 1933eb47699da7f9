#!/usr/bin/env bash
# Builds the release of the checked-out commit twice, with make release and make release-check, a temporary key and a registry on loopback.
# The bytes have to be the same, and changes have to be detected. It ignores what is not committed, and builds the operator's tool for
# linux/amd64 alone.
# usage: release-trial.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need git=git make=make
need_go
go -C "$root/scripts/release" test -count 1 -v -timeout 30m -run '^TestTree$' . -args -tree "$root"
