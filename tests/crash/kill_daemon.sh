#!/bin/bash
# kill_daemon.sh MOECALD MOECAL ROUNDS [SEED] - the service under kill -9
#
# A client keeps submitting jobs with idempotency keys, and asks again when it got no answer. Meanwhile the
# daemon, or the process of a job, is killed at random moments and the daemon started again. In the
# end: every accepted job is there once, has succeeded, and its files have the bits of an undisturbed run.
# A process that is killed again and again is no reason to fail here (--crashes): chance may pick the same one.
set -euo pipefail
moecald=$1 moecal=$2 rounds=$3
RANDOM=${4:-1}
echo "kill_daemon: $rounds rounds, seed ${4:-1}"
work=$(mktemp -d /tmp/moecal-crash-XXXXXX)
daemon=
trap 'kill -9 $daemon 2>/dev/null || true; rm -rf "$work"' EXIT
model=$(realpath tests/data/qwen3moe-2m)
cat docs/*.md >"$work/text.txt"

fail() {
	echo "kill_daemon: $*" >&2
	tail -20 "$work/log" >&2
	exit 1
}

# The same port each time, so that the client need not know that the daemon was away.
start_daemon() {
	local listen=127.0.0.1:${port:-0}
	for _ in $(seq 50); do
		"$moecald" --listen "$listen" --state "$work/state" --program "$moecal" --allow "$work" --allow "$model" \
			--jobs 2 --crashes 100 --free-percent 0 --log-level warning >"$work/out" 2>>"$work/log" &
		daemon=$!
		for _ in $(seq 100); do
			if grep -q listening "$work/out"; then
				port=$(sed -n 's/.*:\([0-9]*\)$/\1/p' "$work/out")
				url=http://127.0.0.1:$port
				return 0
			fi
			kill -0 $daemon 2>/dev/null || break
			sleep 0.05
		done
		kill -9 $daemon 2>/dev/null || true
		sleep 0.1
	done
	fail "the daemon does not start"
}

spec() { # number -> a spec; four kinds, so that results can be compared
	local recipes=(W4A16 FP8_DYNAMIC W8A8 FP8)
	echo "{\"model\": \"$model\", \"dataset\": \"text.txt\", \"recipe\": \"${recipes[$(($1 % 4))]}\"," \
		"\"concatenate_data\": true, \"max_seq_length\": 256, \"metadata\": {\"number\": $1}}"
}

# An undisturbed run of each kind, through another daemon's state: what it writes is what must come out.
expected() {
	for kind in 0 1 2 3; do
		spec $kind | sed "s|text.txt|$work/text.txt|" >"$work/spec.json"
		"$moecal" run "$work/spec.json" -o "$work/expected-$kind" --json >/dev/null 2>&1 || fail "the undisturbed run"
	done
}

submit() { # number; asks until there is an answer
	local code
	for _ in $(seq 600); do
		code=$(spec "$1" | curl -s -o "$work/answer" -w '%{http_code}' --max-time 30 -X POST "$url/v1/jobs" \
			-H 'Content-Type: application/json' -H "Idempotency-Key: job-$1" --data-binary @- || true)
		[ "$code" = 201 ] && return 0
		case $code in 000 | 429 | 503) sleep 0.05 ;; *) fail "submit $1: $code $(cat "$work/answer")" ;; esac
	done
	fail "submit $1: never answered"
}

expected
start_daemon
killed_daemon=0 killed_child=0
for ((round = 0; round < rounds; round++)); do
	submit $round &
	client=$!
	sleep "0.$(printf %03d $((RANDOM % 700)))"
	child=$(pgrep -P "$daemon" -f 'moecal run' | head -1 || true)
	if [ $((RANDOM % 3)) = 0 ] && [ -n "$child" ]; then
		kill -9 "$child" 2>/dev/null && killed_child=$((killed_child + 1)) || true
	else
		kill -9 $daemon && killed_daemon=$((killed_daemon + 1))
		wait $daemon 2>/dev/null || true
		start_daemon
	fi
	wait $client || exit 1
done

# All of them, each once, all succeeded.
for ((round = 0; round < rounds; round++)); do
	submit $round # a replay tells the id that the key stands for
	id=$(jq -r .id "$work/answer")
	curl -sf "$url/v1/jobs/$id?wait=60" >"$work/job" || fail "job $id is lost"
	[ "$(jq -r .state "$work/job")" = succeeded ] || fail "job $id: $(jq -c '[.state, .reason]' "$work/job")"
	[ "$(jq -r .spec.metadata.number "$work/job")" = $round ] || fail "job $id is another one than number $round"
	echo "$id" >>"$work/ids"
	kind=$((round % 4))
	curl -sf "$url/v1/jobs/$id/artifacts?limit=200" | jq -r '.artifacts[] | .path + " " + .sha256' |
		grep -E '^(model/|quantization)' >"$work/digests" || fail "job $id has no artifacts"
	while read -r path digest; do
		[ "$(sha256sum <"$work/expected-$kind/$path" | cut -d' ' -f1)" = "$digest" ] ||
			fail "job $id: $path differs from an undisturbed run"
		curl -sf "$url/v1/jobs/$id/artifacts/$path" | sha256sum | grep -q "^$digest" || fail "job $id: $path was not served"
	done <"$work/digests"
done
[ "$(sort -u "$work/ids" | wc -l)" = "$rounds" ] || fail "two keys made one job"
total=0 cursor=
while :; do
	page=$(curl -sf "$url/v1/jobs?limit=200${cursor:+&cursor=$cursor}")
	total=$((total + $(jq '.jobs | length' <<<"$page")))
	cursor=$(jq -r '.next_cursor // empty' <<<"$page")
	[ -n "$cursor" ] || break
done
[ "$total" = "$rounds" ] || fail "$total jobs for $rounds submissions"
kill -TERM $daemon
wait $daemon || fail "the daemon ended with $?"
daemon=
echo "kill_daemon: $rounds jobs, daemon killed $killed_daemon times, jobs $killed_child times: all succeeded once, same bits"
echo "1 passed, 0 failed"
