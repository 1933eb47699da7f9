#!/usr/bin/env bash
# Builds the container images. images.sh --help lists the flags. For --builder buildah it first installs buildah and what that needs.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
case " $* " in
*" -h "* | *" --help "*) exec cat "$root/scripts/images/help.txt" ;; # works without Go
esac
need_go
case " $* " in
*" --builder buildah "* | *" --builder=buildah "*) need_buildah ;;
esac
program=$root/dist/images-program # not run by go, which would take the exit code from it
go -C "$root/scripts/images" build -o "$program" .
exec "$program" --root "$root" "$@"
