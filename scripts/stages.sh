# Sourced after lib.sh by scripts that run several stages. All stages run, even if some fail. In the end a table has each stage's result and
# duration, and the tests that failed. bash.
# shellcheck shell=bash disable=SC2034,SC2154

declare -A stage_after stage_command stage_state stage_pid stage_began stage_took
stages=()

# stage NAME AFTER COMMAND...: declares a stage. It starts when all stages in AFTER, separated by spaces, have ended.
stage() {
	local name=$1
	stages+=("$name")
	stage_after[$name]=$2
	shift 2
	stage_command[$name]=${*@Q}
	stage_state[$name]=waiting
}

# run_stages LOGS: runs all stages, at the same time unless one waits for another, and returns 1 if one has failed. Each stage's output goes
# to a file in the directory LOGS, and is printed when the stage has ended. Every 30 s a line says which stages are running. When this
# script ends, for whatever reason, the stages end, too.
run_stages() {
	[ ${#stages[@]} -gt 0 ] || refuse "there is no stage to run" "Nothing was tested."
	stage_logs=$1
	mkdir -p "$stage_logs"
	trap end_stages EXIT
	trap 'exit 130' INT TERM HUP
	local name ended=0 told=$SECONDS
	while [ $ended -lt ${#stages[@]} ]; do
		for name in "${stages[@]}"; do
			case ${stage_state[$name]} in
			waiting) ! may_start "$name" || start_stage "$name" ;;
			running) if ! kill -0 "${stage_pid[$name]}" 2>/dev/null; then
				ended=$((ended + 1))
				end_stage "$name" $ended
			fi ;;
			esac
		done
		if [ $((SECONDS - told)) -ge 30 ]; then
			told=$SECONDS
			tell_running
		fi
		sleep 0.2
	done
	trap - EXIT INT TERM HUP
	stage_table
}

# follow_stages LOGS: runs one stage after the other, and prints the output as it comes.
follow_stages() {
	stage_logs=$1
	mkdir -p "$stage_logs"
	local name number=0
	for name in "${stages[@]}"; do
		number=$((number + 1))
		printf '=== %s of %s: %s\n' $number ${#stages[@]} "$name"
		stage_began[$name]=$SECONDS
		if eval "${stage_command[$name]}" </dev/null > >(tee "$(log_of "$name")") 2>&1; then
			settle_stage "$name" ok
		else
			settle_stage "$name" FAILED
		fi
		end_tee $! "$name"
		printf '=== %s of %s: %s: %s, %s\n\n' $number ${#stages[@]} "$name" "${stage_state[$name]}" "$(minutes "${stage_took[$name]}")"
	done
	stage_table
}

# end_tee PID NAME: waits until tee has printed its last line. A process that a stage leaves behind keeps the output open. That is a
# failure.
end_tee() {
	local _
	for _ in {1..300}; do # a minute
		kill -0 "$1" 2>/dev/null || return 0
		sleep 0.2
	done
	printf '%s: a process that was started here is still running\n' "$2"
	kill "$1" 2>/dev/null || true
	settle_stage "$2" FAILED
}

log_of() { echo "$stage_logs/${1//[ \/]/-}.log"; }

minutes() { printf '%d min %02d s' $(($1 / 60)) $(($1 % 60)); }

may_start() {
	local other
	for other in ${stage_after[$1]}; do
		case ${stage_state[$other]} in ok | FAILED) ;; *) return 1 ;; esac
	done
}

# start_stage NAME: starts a stage in a process group of its own.
start_stage() {
	: >"$(log_of "$1")" # so that the log can be read from now on
	set -m
	eval "${stage_command[$1]}" >"$(log_of "$1")" 2>&1 </dev/null &
	set +m
	stage_pid[$1]=$! stage_state[$1]=running stage_began[$1]=$SECONDS
	printf '=== %s: started\n' "$1"
}

settle_stage() { stage_state[$1]=$2 stage_took[$1]=$((SECONDS - stage_began[$1])); }

# end_stage NAME NUMBER: prints the stage's output and result.
end_stage() {
	if wait "${stage_pid[$1]}"; then
		settle_stage "$1" ok
	else
		settle_stage "$1" FAILED
	fi
	kill -KILL -- "-${stage_pid[$1]}" 2>/dev/null || true # what the stage has left behind
	printf '\n=== %s\n' "$1"
	cat "$(log_of "$1")"
	printf '=== %s of %s: %s: %s, %s\n' "$2" ${#stages[@]} "$1" "${stage_state[$1]}" "$(minutes "${stage_took[$1]}")"
}

# tell_running: prints the running stages, how long each has been running, and the last heading in its log.
tell_running() {
	local name line
	line="=== after $(minutes $SECONDS):"
	for name in "${stages[@]}"; do
		[ "${stage_state[$name]}" = running ] || continue
		line+=" $name, $(minutes $((SECONDS - stage_began[$name])))"
		line+=$(tail -n 2000 "$(log_of "$name")" |
			awk '/^==+ / {sub(/^=+ +/, ""); last = $0} END {if (last) printf " (%s)", substr(last, 1, 60)}')";"
	done
	echo "${line%;}"
}

# end_stages: ends the running stages, and waits for their end: they may have to restore something.
end_stages() {
	local status=$? name signal
	trap '' INT TERM HUP
	for signal in TERM KILL; do
		for name in "${stages[@]}"; do
			[ "${stage_state[$name]}" != running ] || kill -$signal -- "-${stage_pid[$name]}" 2>/dev/null || true
		done
		for _ in {1..300}; do # a minute
			any_running || exit $status
			sleep 0.2
		done
	done
	exit $status
}

# any_running: whether a process is left in a stage's group, even if its parent has ended.
any_running() {
	local name
	for name in "${stages[@]}"; do
		[ "${stage_state[$name]}" != running ] || ! kill -0 -- "-${stage_pid[$name]}" 2>/dev/null || return 0
	done
	return 1
}

# stage_table: prints the results, and returns 1 if a stage has failed.
stage_table() {
	local name tests failed=0
	echo
	for name in "${stages[@]}"; do
		printf '%-30s %-7s %3d min %02d s\n' "$name" "${stage_state[$name]}" $((stage_took[$name] / 60)) $((stage_took[$name] % 60))
		[ "${stage_state[$name]}" = ok ] || failed=$((failed + 1))
	done
	printf '%-30s %-7s %3d min %02d s\n' all "$([ $failed = 0 ] && echo ok || echo FAILED)" $((SECONDS / 60)) $((SECONDS % 60))
	[ $failed != 0 ] || return 0
	echo
	echo "$failed of ${#stages[@]} failed; the logs are in $stage_logs:"
	for name in "${stages[@]}"; do
		[ "${stage_state[$name]}" = FAILED ] || continue
		printf '  %s\n' "$name"
		tests=$(failed_tests "$(log_of "$name")")
		[ -n "$tests" ] || tests=$(tail -n 3 "$(log_of "$name")" | sed 's/^/    /')
		printf '%s\n' "$tests"
	done
	return 1
}

# failed_tests LOG: prints the failed tests in the output of `go test`, by package, each with its first lines of output.
failed_tests() {
	awk '
		/^=== (RUN|CONT|NAME) / {now = $3}
		/^ *--- [A-Z]+: / {now = $3}
		/^ *[a-z0-9_]+_test\.go:[0-9]+: / && said[now] < 5 {
			sub(/^ +/, "")
			says[now, ++said[now]] = substr($0, 1, 300)
		}
		/^ *--- FAIL: / {failed[++count] = $3}
		/^\t\t(Test|Fuzz)[^ ]* \(/ {failed[++count] = $1 " (running when the time was over)"}
		/^FAIL\t/ {
			if (!count) printf "    %s %s\n", $2, $3 ~ /^\[/ ? $3 " " $4 : "failed outside of its tests"
			for (i = 1; i <= count; i++) {
				parent = 0 # of a test that has failed itself
				for (k = 1; k <= count; k++) parent += index(failed[k], failed[i] "/") == 1
				if (parent) continue
				printf "    %s %s\n", $2, failed[i]
				for (k = 1; k <= said[failed[i]]; k++) printf "      %s\n", says[failed[i], k]
			}
			count = 0
			now = ""
			delete said
		}' "$1"
}
