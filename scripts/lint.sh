#!/usr/bin/env bash
# gofmt, go vet, golangci-lint (built once into the cache) and shellcheck.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
need_go
need_programs shellcheck=shellcheck
version=v2.15.0
bin=$(cache_dir)/lint-$version
if [ ! -x "$bin/golangci-lint" ]; then
	printf 'building golangci-lint %s once; this takes some minutes\n' "$version"
	GOBIN=$bin go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"
fi
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || die "not formatted: $unformatted"
go vet ./...
"$bin/golangci-lint" run ./...
(cd conformance && go vet ./... && "$bin/golangci-lint" run --config ../.golangci.yml ./...)
git ls-files '*.sh' .ci/run | xargs shellcheck -x
