#!/bin/bash
# run.sh MOECALD MOECAL - generated requests against a running moecald: what it answers is what docs/openapi.json says
#
# Needs Python 3.10 or newer; installs requirements.txt into build/venv-contract once. The daemon is one of
# its own on 127.0.0.1, with a model, a dataset, a finished and a canceled job, so that ids exist.
# EXAMPLES=N: generated requests an operation and phase (20). SEED=N: other ones (1).
set -u
usage="usage: run.sh MOECALD MOECAL"
moecald=$(realpath "${1:?$usage}") moecal=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/../.." || exit 2
venv=$PWD/build/venv-contract document=$PWD/docs/openapi.json here=$PWD/tests/contract
die() {
	echo "contract: $*" >&2
	exit 1
}
for tool in curl jq python3; do
	command -v "$tool" >/dev/null || die "$tool is missing"
done
if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
	rm -rf "$venv"
	python3 -m venv "$venv" && "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
		die "the packages of tests/contract/requirements.txt cannot be installed"
	cp "$here/requirements.txt" "$venv/requirements.txt"
fi

work=$(mktemp -d /tmp/moecal-contract-XXXXXX)
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
# small limits: so that they are met, and long polls are short
"$moecald" --listen 127.0.0.1:0 --state "$work/state" --allow tests/data --program "$moecal" \
	--wait-seconds 1 --upload-bytes 1M --log-level warning >"$work/out" 2>"$work/log" &
daemon=$!
for _ in $(seq 100); do
	grep -q '^listening on ' "$work/out" && break
	kill -0 "$daemon" 2>/dev/null || break
	sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$work/out" | head -1)
[ -n "$url" ] || {
	cat "$work/log" >&2
	die "moecald does not start"
}

post() { curl -sS --fail-with-body -X POST "$url$1" -H "Content-Type: ${3:-application/json}" --data-binary "$2"; }
until_final() {
	for _ in $(seq 120); do
		case $(curl -sS "$url/v1/jobs/$1?wait=1" | jq -r .state) in succeeded | failed | canceled) return ;; esac
	done
	die "job $1 does not end"
}
# The names of the document's examples, so that these are requests that work.
post /v1/models '{"path": "qwen3moe-2m", "id": "tiny"}' >"$work/answer" || die "$(cat "$work/answer")"
post '/v1/datasets?id=text' "$(seq -s ' ' 1 2000)" text/plain >"$work/answer" || die "$(cat "$work/answer")"
spec='{"model": "tiny", "dataset": "text", "recipe": "FP8", "max_seq_length": 256, "concatenate_data": true}'
post /v1/jobs "$spec" >"$work/answer" || die "$(cat "$work/answer")"
job=$(jq -r .id "$work/answer")
until_final "$job"
[ "$(curl -sS "$url/v1/jobs/$job" | jq -r .state)" = succeeded ] || die "the job did not succeed"
# canceled before it can end: its data are much longer
seq 1 40000 >"$work/long.txt"
post '/v1/datasets?id=long' "@$work/long.txt" text/plain >"$work/answer" || die "$(cat "$work/answer")"
post /v1/jobs '{"model": "tiny", "dataset": "long", "recipe": "FP8", "concatenate_data": true}' >"$work/answer" || die "$(cat "$work/answer")"
canceled=$(jq -r .id "$work/answer")
post "/v1/jobs/$canceled/cancel" '' >"$work/answer" || die "$(cat "$work/answer")"
until_final "$canceled"
# one of each to be deleted
post /v1/models '{"path": "qwen3moe-2m", "id": "second"}' >"$work/answer" || die "$(cat "$work/answer")"
post '/v1/datasets?id=second' "$(seq 1 10)" text/plain >"$work/answer" || die "$(cat "$work/answer")"

# The examples of the document are what its schemas say, and so are answers of this daemon.
"$venv/bin/python" "$here/examples.py" "$document" "$url" "jobs=$job" models=tiny datasets=text ||
	die "examples or answers are not what docs/openapi.json says"

operation() { printf '[[operations]]\ninclude-path = "%s"\n%sparameters = { %s }\n\n' "$1" "${3:+include-method = \"$3\"
}" "$2"; }
{
	printf 'hooks = "%s"\n\n' "$here/hooks.py"
	for path in '' /events /coverage /statistics /quantization /verdict /artifacts; do
		operation "/v1/jobs/{id}$path" "\"path.id\" = \"$job\"" GET
	done
	operation '/v1/jobs/{id}/artifacts/{path}' "\"path.id\" = \"$job\", \"path.path\" = [\"model/config.json\", \"calibration.db\", \"events.jsonl\", \"model/recipe.yaml\"]" GET
	operation '/v1/jobs/{id}/cancel' "\"path.id\" = \"$canceled\"" POST
	operation '/v1/jobs/{id}' "\"path.id\" = \"$canceled\"" DELETE
	operation '/v1/models/{id}' '"path.id" = "tiny"' GET
	operation '/v1/models/{id}' '"path.id" = "second"' DELETE
	operation '/v1/datasets/{id}' '"path.id" = "text"' GET
	operation '/v1/datasets/{id}' '"path.id" = "second"' DELETE
} >"$work/schemathesis.toml"

checks=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,response_schema_conformance,negative_data_rejection
attack() { # LABEL OPTIONS...: one run of generated requests
	local label=$1
	shift
	if ! (cd "$work" && "$venv/bin/schemathesis" --config-file "$work/schemathesis.toml" run "$document" --url "$url" --workers 1 \
		--phases examples,coverage,fuzzing --max-examples "${EXAMPLES:-20}" --seed "${SEED:-1}" --checks "$checks" --continue-on-failure \
		--generation-database none --request-timeout 30 --warnings off --no-color "$@") >"$work/report" 2>&1; then
		cat "$work/report" >&2
		failures=$((failures + 1))
	fi
	echo "contract: $label: $(grep -E '^ *[0-9,]+ (generated|passed|test cases)' "$work/report" | tail -1)"
	kill -0 "$daemon" 2>/dev/null || die "moecald is gone: $(tail -3 "$work/log")"
}
failures=0
attack "reading" --include-method GET
attack "making" --include-method POST
attack "deleting" --include-method DELETE
grep -E '^<[0-3]>' "$work/log" >&2 && failures=$((failures + 1))
[ "$failures" -eq 0 ] && echo "contract: fine"
[ "$failures" -eq 0 ]
