#!/usr/bin/env bash
# gofmt, go vet, golangci-lint (built once into the cache), shellcheck and yamllint. usage: lint.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
need shellcheck=shellcheck yamllint=yamllint
version=v2.15.0
bin=$cache/lint-$version
install() { GOBIN=$1 go install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$version"; }
once "$bin" "golangci-lint $version" install
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || refuse "not formatted: $unformatted" "gofmt -w"
go vet ./...
"$bin/golangci-lint" run ./...
go -C conformance vet ./...
(cd conformance && "$bin/golangci-lint" run --config ../.golangci.yml ./...)
for module in images release; do
	(cd "scripts/$module" && "$bin/golangci-lint" run --config ../../.golangci.yml ./...)
done
git ls-files '*.sh' .ci/run | xargs shellcheck -x
git ls-files '*.yaml' '*.yml' | xargs yamllint --strict
