#!/usr/bin/env bash
# Builds the container images; images.sh --help lists the flags. With --builder buildah, buildah and what it needs is installed first.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
need_go
case " $* " in
*" --builder buildah "* | *" --builder=buildah "*) need_buildah ;;
esac
exec go -C "$root/scripts/images" run . "$@"
