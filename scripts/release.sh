#!/usr/bin/env bash
# Makes, signs, pushes and verifies releases; release.sh --help lists the commands.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
case " $* " in
*" -h "* | *" --help "*) exec cat "$root/scripts/release/help.txt" ;; # without Go
esac
need git=git
need_go
program=$root/dist/release-program # not run by go, which would take the working directory and the exit code from it
go -C "$root/scripts/release" build -o "$program" .
exec "$program" --root "$root" "$@"
