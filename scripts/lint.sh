#!/usr/bin/env bash
# gofmt, go vet, golangci-lint and actionlint (built once into the cache), shellcheck and yamllint.
# usage: lint.sh
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
cd "$root"
# shellcheck source=scripts/lib.sh
. scripts/lib.sh
need_go
need shellcheck=shellcheck yamllint=yamllint
golangci=v2.15.0
actionlint=v1.7.12
bin=$cache/lint-$golangci
workflows=$cache/actionlint-$actionlint
install() { GOBIN=$2 go install "$1"; }
once "$bin" "golangci-lint $golangci" install "github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$golangci"
once "$workflows" "actionlint $actionlint" install "github.com/rhysd/actionlint/cmd/actionlint@$actionlint"
unformatted=$(git ls-files '*.go' | xargs gofmt -l)
[ -z "$unformatted" ] || refuse "not formatted: $unformatted" "gofmt -w"
long=$(git ls-files '*.sh' .ci/run | LC_ALL=C.UTF-8 xargs grep -nE '^.{141}' | cut -d: -f1,2) || true
[ -z "$long" ] || refuse "longer than the 140 columns of .editorconfig: $long" "Wrap it."
go vet ./...
"$bin/golangci-lint" run ./...
go -C conformance vet ./...
(cd conformance && "$bin/golangci-lint" run --config ../.golangci.yml ./...)
for module in images release; do
	(cd "scripts/$module" && "$bin/golangci-lint" run --config ../../.golangci.yml ./...)
done
git ls-files '*.sh' .ci/run | xargs shellcheck -x
git ls-files '*.yaml' '*.yml' | xargs yamllint --strict
"$workflows/actionlint"
