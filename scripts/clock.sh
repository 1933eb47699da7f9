#!/usr/bin/env bash
# Prints a flag with which go build makes programs whose clock a test can change: time.Now adds the number of seconds in the file
# /opt/cni/bin/.clock-offset, if it exists. The product's own source is not changed.
# usage: clock.sh DIRECTORY
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
# shellcheck source=scripts/lib.sh
. "$root/scripts/lib.sh"
[ $# = 1 ] || refuse "wrong usage: ${*:-nothing} instead of a directory" "scripts/clock.sh DIRECTORY" 2
dir=$(realpath "$1")
source=$(go env GOROOT)/src/time/time.go
sed -E '/^func Now\(\) Time/,/^}/s/^\tsec, nsec, mono := (runtimeNow|now)\(\)$/&\n\tsec += clockOffset/' "$source" >"$dir/time.go"
[ "$(grep -c 'sec += clockOffset' "$dir/time.go")" = 1 ] ||
	refuse "time.Now of this Go does not look as expected" "Look at $source, and have this script change what it has now."
cat >>"$dir/time.go" <<'END'

// clockOffset is read over and over beside the program: the runtime calls Now where no system call may be made.
var clockOffset int64

func init() {
	clockOffset = readClockOffset()
	go func() {
		for {
			Sleep(50 * Millisecond)
			clockOffset = readClockOffset()
		}
	}()
}

func readClockOffset() (offset int64) {
	fd, err := open("/opt/cni/bin/.clock-offset")
	if err != nil {
		return 0
	}
	defer closefd(fd)
	var text [16]byte
	n, _ := read(fd, text[:])
	sign := int64(1)
	for _, c := range text[:max(n, 0)] {
		if c == '-' {
			sign = -1
		} else if '0' <= c && c <= '9' {
			offset = 10*offset + int64(c-'0')
		}
	}
	return sign * offset
}
END
echo "{\"Replace\": {\"$source\": \"$dir/time.go\"}}" >"$dir/overlay.json"
echo "-overlay=$dir/overlay.json"
