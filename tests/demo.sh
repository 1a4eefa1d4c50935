#!/bin/bash
# demo_service.sh MOECALD MOECAL - the service end to end: a daemon, a model, a text, a job, its proof
set -euo pipefail
moecald=$1 moecal=$2
state=$(mktemp -d /tmp/moecal-demo-XXXXXX)
log=$state.log
"$moecald" --listen 127.0.0.1:0 --state "$state" --allow tests/data >"$state.out" 2>"$log" &
daemon=$!
trap 'kill $daemon 2>/dev/null || true' EXIT
for _ in $(seq 100); do
	grep -q listening "$state.out" && break
	kill -0 $daemon 2>/dev/null || { cat "$log" >&2; exit 1; }
	sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$state.out" | head -1)
say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
post() { curl -sS --fail-with-body -X POST "$@"; }

say "moecald listens on $url, its state lies in $state"

say "\$ curl -X POST $url/v1/models -d '{\"path\": \"qwen3moe-2m\", \"id\": \"tiny\"}'"
post "$url/v1/models" -H 'Content-Type: application/json' -d '{"path": "qwen3moe-2m", "id": "tiny"}' |
	jq -c '{id, architecture, layers, experts, parameters, digest}'

say "\$ curl -X POST '$url/v1/datasets?id=docs' --data-binary @docs.txt"
cat README.md docs/*.md | post "$url/v1/datasets?id=docs" -H 'Content-Type: text/plain' --data-binary @- |
	jq -c '{id, kind, samples, bytes, sha256}'

spec='{"model": "tiny", "dataset": "docs", "recipe": "W4A16", "concatenate_data": true, "max_seq_length": 512}'
say "\$ curl -X POST $url/v1/plans -d '$spec'"
post "$url/v1/plans" -H 'Content-Type: application/json' -d "$spec" |
	jq -c '{fits, sequences: .plan.sequences, tokens: .plan.tokens, memory_bytes: .plan.memory_bytes, disk_bytes: .plan.disk_bytes, seconds: .plan.seconds}'

say "\$ curl -X POST $url/v1/jobs -H 'Idempotency-Key: demo' -d '...'"
job=$(post "$url/v1/jobs" -H 'Content-Type: application/json' -H 'Idempotency-Key: demo' -d "$spec" | jq -r .id)
echo "$job"

say "\$ moecal watch $job"
MOECAL_URL=$url "$moecal" watch "$job"

say "\$ curl $url/v1/jobs/$job/verdict"
curl -sS --fail-with-body "$url/v1/jobs/$job/verdict" >"$state.verdict"
jq -r '"valid: \(.valid)", (.checks[] | "  \(if .passed then "ok  " else "FAIL" end) \(.name): \(.counted) checked, \(.failed) failed")' "$state.verdict"

say "coverage: tokens that routing alone would have given the experts (every expert saw all of them)"
curl -sS --fail-with-body "$url/v1/jobs/$job/coverage" |
	jq -r '.floor_tokens as $floor | .layers[] | "  \(.name): least \(.min), median \(.median), gini \(.gini * 100 | round / 100)" +
		(if (.starved | length) > 0 then "; below the floor of \($floor): experts \(.starved | map(tostring) | join(", "))" else "" end)'

say "three parameters over HTTP"
for name in model.layers.0.mlp.experts.4.gate_proj model.layers.2.mlp.experts.1.down_proj model.layers.3.self_attn.q_proj; do
	curl -sS --fail-with-body "$url/v1/jobs/$job/quantization?module=$name" |
		jq -r '.parameters[0] | "  \(.name) \(.dtype) \(.shape): \([.data | flatten | .[0:4][] | tostring] | join(", ")) ..."'
done

valid=$(jq -r .valid "$state.verdict")
say "checkpoint: $state/jobs/$job/folder/model"
echo "status page (while the daemon runs): $url/#/jobs/$job"
if [ "${MOECAL_DEMO_STAY:-}" != "" ]; then
	echo "the daemon stays until Ctrl-C"
	wait $daemon
fi
rm -f "$state.out" "$state.verdict"
[ "$valid" = true ]
