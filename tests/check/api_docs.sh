#!/bin/bash
# api_docs.sh - runs the commands of docs/API.md, in order, against a daemon of their own
#
# usage: api_docs.sh MOECALD MOECAL
#
# A fenced block "sh" holds commands that must succeed and be answered with success; after "sh NNN" the
# last answer must have that status. Every line of the guide becomes one line of a script, so line
# numbers of errors are those of the guide. The first error ends it.
set -u
usage="usage: api_docs.sh MOECALD MOECAL"
moecald=$(realpath "${1:?$usage}") moecal=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/../.." || exit 2
guide=$PWD/docs/API.md
for tool in curl jq; do
	command -v "$tool" >/dev/null || {
		echo "api-docs: $tool is missing (Debian: $tool)" >&2
		exit 1
	}
done
work=$(mktemp -d /tmp/moecal-api-docs-XXXXXX)
daemon=
# shellcheck disable=SC2329 # called by the trap
finish() {
	if [ -n "$daemon" ]; then
		kill "$daemon" 2>/dev/null
		wait "$daemon" 2>/dev/null
	fi
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM

"$moecald" --listen 127.0.0.1:0 --state "$work/state" --allow tests/data --program "$moecal" >"$work/out" 2>"$work/log" &
daemon=$!
for _ in $(seq 100); do
	grep -q '^listening on ' "$work/out" && break
	kill -0 "$daemon" 2>/dev/null || break
	sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$work/out" | head -1)
[ -n "$url" ] || {
	cat "$work/log" >&2
	echo "api-docs: moecald does not start" >&2
	exit 1
}

# Line 1 of the guide is its title: there is room for what the script needs.
cat >"$work/prelude" <<'EOF'
set -eE -o pipefail
count=0 wanted= line=0
# within curl() the line is that of the call
trap 'code=$? at=$LINENO depth=${#FUNCNAME[@]}
[ "$depth" -lt 2 ] || at=${BASH_LINENO[depth - 2]}
[ "$BASH_SUBSHELL" -gt 0 ] || failed "$at" "the command ended with $code"' ERR
failed() {
	trap - ERR
	echo "api-docs: docs/API.md:$1: $2" >&3
	sed -n "${1}p" "$guide" | sed 's/^/    /' >&3
	[ ! -s "$work/said" ] || { echo "    it said:" && tail -c 1500 "$work/said" | sed 's/^/    /' && echo; } >&3
	exit 1
}
curl() {
	if [ -n "$wanted" ]; then
		command curl -D "$work/headers" "$@"
	else
		command curl -D "$work/headers" --fail-with-body "$@"
	fi
}
begin() {
	line=$1 wanted=${2:-}
	: >"$work/headers"
	exec >"$work/said" 2>&1
}
end() {
	local status
	status=$(sed -n 's|^HTTP/[0-9.]* \([0-9]*\).*|\1|p' "$work/headers" | tail -1)
	[ -z "$wanted" ] || [ "$status" = "$wanted" ] || failed "$line" "the last answer has status ${status:-none}, not $wanted"
	count=$((count + 1))
	echo "$count" >"$work/count"
}
EOF
awk -v prelude="$work/prelude" '
	NR == 1 { print ". " prelude; next }
	!inside && /^```sh( [0-9][0-9][0-9])?$/ { inside = 1; print "begin " NR " " $2; next }
	!inside && /^```sh/ { print "api-docs: docs/API.md:" NR ": " $0 " is no block that runs" >"/dev/stderr"; exit 2 }
	inside && /^```$/ { inside = 0; print "end"; next }
	inside { print; next }
	{ print "" }
	END { if (inside) print "api-docs: docs/API.md: a block is not closed" >"/dev/stderr"; if (inside) exit 2 }' "$guide" >"$work/script" || exit 1
blocks=$(grep -c '^begin [0-9]' "$work/script")
echo 0 >"$work/count"
mkdir "$work/here"
(cd "$work/here" && env -u MOECAL_TOKEN MOECAL_URL="$url" work="$work" guide="$guide" bash "$work/script" 3>&2)
code=$?
passed=$(cat "$work/count")
failed=0
if [ "$code" -ne 0 ] || [ "$passed" -ne "$blocks" ]; then
	failed=1
	grep -E '^<[0-4]>' "$work/log" | tail -5 >&2
fi
echo "api-docs: $passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -gt 0 ]
