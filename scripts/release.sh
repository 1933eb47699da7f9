#!/usr/bin/env bash
# Builds, signs, pushes and verifies releases. release.sh --help lists the commands.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
case " $* " in
*" -h "* | *" --help "*) exec cat "$root/scripts/release/help.txt" ;; # works without Go
esac
need git=git
need_go
program=$root/dist/release-program # not by go run, which would change the working directory and the exit status
go -C "$root/scripts/release" build -o "$program" .
exec "$program" --root "$root" "$@"
