#!/bin/bash
# kill_run.sh MOECAL [ROUNDS] - moecal run, then moecal derive, killed with -9 at random moments until it is done; the
# result must have the bits of an undisturbed run, and at no moment may a half-written result stand under a final name
set -u
moecal=$(realpath "$1")
rounds=${2:-10}
cd "$(dirname "$0")/../.." || exit 2
work=$(mktemp -d /tmp/moecal-kill-XXXXXX)
trap 'rm -rf "$work"' EXIT
RANDOM=1
for i in $(seq 600); do
	echo "{\"text\": \"Line $i: the road went on over the hill, and then down to the sea where the boats lay.\"}"
done >"$work/data.jsonl"
# exec: the process that is killed must be the program itself
run() {
	exec "$moecal" run --model tests/data/qwen3moe-2m --dataset "$work/data.jsonl" --recipe "${2:-W8A8}" \
		--num-calibration-samples 600 --threads 1 -o "$1" >/dev/null 2>"$work/stderr"
}
derive() {
	exec "$moecal" derive "$work/source" --recipe W8A8 --threads 1 -o "$1" >/dev/null 2>"$work/stderr"
}
milliseconds() {
	start=$(date +%s%N)
	("$@") || { cat "$work/stderr" >&2; exit 1; }
	echo $((($(date +%s%N) - start) / 1000000))
}
kills=0
# try COMMAND MILLISECONDS: rounds of a command that takes so long when nobody disturbs it
try() {
	for round in $(seq "$rounds"); do
		out=$work/round-$round
		while :; do
			"$1" "$out" &
			child=$!
			sleep "$(awk -v ms=$((RANDOM % $2)) 'BEGIN { print ms / 1000 }')"
			kill -KILL $child 2>/dev/null && kills=$((kills + 1))
			wait $child 2>/dev/null
			code=$?
			if [ -e "$out/manifest.json" ] && [ ! -e "$out/resume" ]; then break; fi
			if [ $code -ne 137 ] && [ $code -ne 0 ]; then
				echo "$1, round $round: exit $code"
				cat "$work/stderr"
				exit 1
			fi
			for file in model/model.safetensors quantization.safetensors; do
				if [ -e "$out/$file" ] && ! cmp -s "$work/whole/$file" "$out/$file"; then
					echo "$1, round $round: $file is there and not whole"
					exit 1
				fi
			done
		done
		for file in model/model.safetensors model/config.json quantization.safetensors verdict.json; do
			cmp "$work/whole/$file" "$out/$file" || exit 1
		done
		rm -rf "$out"
	done
}
whole_ms=$(milliseconds run "$work/whole") || exit 1
try run "$whole_ms"
(run "$work/source" W4A16) || exit 1
derived_ms=$(milliseconds derive "$work/derived") || exit 1
try derive "$derived_ms"
echo "$rounds rounds of run and of derive, $kills kills, every result has the bits of the undisturbed run"
