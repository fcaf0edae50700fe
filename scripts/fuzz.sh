#!/usr/bin/env bash
# Fuzzes each target for some seconds and prints a table; docs/fuzzing.md says what the targets hold.
#
#   scripts/fuzz.sh [SECONDS] [TARGET ...]   all targets for a minute each, one after the other
#   scripts/fuzz.sh keep [TARGET ...]        adds to fuzz/corpus what was found that reaches further than what is there
#
# New inputs go to target/fuzz/corpus, what makes a target fail to fuzz/artifacts: give that to the target's test.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\033[1m==>\033[0m %s\n' "$*" >&2; }

seconds=60 keep=
case ${1:-} in
keep) keep=1 && shift ;;
[0-9]*) seconds=$1 && shift ;;
esac
guided="config session usage events retry signals identity keys pool response"
random="sockets hostile answers"
targets=${*:-$guided $random}
out=target/fuzz
binaries=$out/$(rustc -vV | sed -n 's/^host: //p')/release
# cargo-fuzz asks for a sanitizer, which only a nightly compiler offers by itself.
export RUSTC_BOOTSTRAP=1 ASAN_OPTIONS=detect_odr_violation=0

build() {
	local fuzz
	fuzz=$(scripts/tool.sh cargo-fuzz 0.13.2)
	# What is fuzzed is what ships: the same versions of everything.
	cp Cargo.lock fuzz/Cargo.lock
	mkdir -p "$out"
	# The words of the reference are those of a config.
	{
		grep -oE '[a-z_]+:|[A-Za-z0-9_.%/-]+' conf/reference.yaml | sort -u | sed 's/.*/"&"/'
		printf '"%s"\n' '\x0a  - ' '\x0a    ' '{' '}' '[' ']' ': ' '&a ' '*a' '!t ' '<<: ' '|\x0a' '---\x0a' '? ' '~' '\xef\xbb\xbf' '\x0d\x0a'
	} >"$out/config.dict"
	printf '"%s"\n' 'HTTP/1.1 200 OK\x0d\x0a' 'HTTP/1.0 ' ' 204 ' ' 304 ' ' 101 ' 'Content-Length: ' 'Transfer-Encoding: chunked\x0d\x0a' \
		'Connection: ' 'close' 'keep-alive' ', ' '\x0d\x0a' '\x0d\x0a\x0d\x0a' '0\x0d\x0a\x0d\x0a' '\x0a' '\x0d' ';a' '=\x22' '\x22' '\x5c' ': ' \
		'\x0d\x0a ' '\x00' '\x7f' '\xff' '\x09' >"$out/response.dict"
	say "building the targets (the first time takes minutes)"
	"$fuzz" build --codegen-units 16 --target-dir "$out" >&2
}

# The last number of this kind that libFuzzer printed.
figure() { sed -nE "s/.*$1:? +([0-9]+).*/\1/p" "$out/$2.log" | tail -1; }

guided() {
	local target=$1 begun=$SECONDS options=()
	mkdir -p "$out/corpus/$target" "fuzz/artifacts/$target"
	if [ -f "$out/$target.dict" ]; then options=(-dict="$out/$target.dict"); fi
	"$binaries/$target" "$out/corpus/$target" "fuzz/corpus/$target" "${options[@]}" -max_total_time="$seconds" -max_len=8192 \
		-timeout=10 -rss_limit_mb=2048 -artifact_prefix="fuzz/artifacts/$target/" -print_final_stats=1 \
		>"$out/$target.log" 2>&1 || {
		tail -40 "$out/$target.log" >&2
		return 1
	}
	row "$target" "$(figure stat::number_of_executed_units "$target")" "$(figure cov "$target")" $((SECONDS - begun))
}

# Tests that make their inputs by themselves, again and again with other seeds.
random() {
	local target=$1 begun=$SECONDS cases=0 each seed test=()
	case $target in
	sockets) test=(--test gateway retry_random) each=1000 ;;
	hostile) test=(--test hostile fuzz) each=20000 ;;
	answers) test=(--test hostile random_answers) each=20000 ;;
	*) say "no target $target: there are $guided $random" && return 1 ;;
	esac
	while [ $((SECONDS - begun)) -lt "$seconds" ]; do
		seed=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
		INGLE_FUZZ_SEED=$seed INGLE_FUZZ_CASES=$each env -u RUSTC_BOOTSTRAP cargo test --quiet "${test[@]}" \
			>"$out/$target.log" 2>&1 || {
			tail -40 "$out/$target.log" >&2
			return 1
		}
		cases=$((cases + each))
	done
	row "$target" "$cases" "-" $((SECONDS - begun))
}

row() { printf '| `%s` | %s | %s | %s s |\n' "$@"; }

if [ -n "$keep" ]; then
	build
	for target in ${*:-$guided}; do
		"$binaries/$target" -merge=1 -use_counters=0 -max_len=8192 "fuzz/corpus/$target" "$out/corpus/$target" >"$out/$target.merge.log" 2>&1
		say "$target: $(find "fuzz/corpus/$target" -type f | wc -l) inputs, $(du -sb "fuzz/corpus/$target" | cut -f1) bytes"
	done
	exit
fi
needed=
for target in $targets; do
	case " $guided " in *" $target "*) needed=1 ;; esac
done
if [ -n "$needed" ]; then build; fi
printf '| target | executions | edges reached | time |\n|---|---|---|---|\n'
failed=0
for target in $targets; do
	say "$target"
	case " $guided " in
	*" $target "*) guided "$target" || failed=1 ;;
	*) random "$target" || failed=1 ;;
	esac
done
[ "$failed" = 0 ] || say "FAILED: what made a target fail is above, and in fuzz/artifacts"
exit $failed
