#!/bin/sh
# monitoring.sh - alert rules and dashboard: they parse, they do what they say, their metrics exist
#
# usage: monitoring.sh MOECALD MOECAL    a real scrape is checked too
set -u
moecald=$(realpath "${1:?usage: monitoring.sh MOECALD MOECAL}") moecal=$(realpath "${2:?usage: monitoring.sh MOECALD MOECAL}")
cd "$(dirname "$0")/../.." || exit 2
rules=systemd/prometheus-rules.yml
tests=systemd/prometheus-rules.test.yml
dashboard=systemd/grafana-dashboard.json
failures=0
fail() {
	echo "monitoring: $*" >&2
	failures=$((failures + 1))
}
for tool in promtool:prometheus jq:jq; do
	command -v "${tool%:*}" >/dev/null || {
		echo "monitoring: ${tool%:*} is missing (Debian: ${tool#*:})" >&2
		exit 1
	}
done
work=$(mktemp -d /tmp/moecald-monitoring-XXXXXX)
daemon=
trap '[ -z "$daemon" ] || kill "$daemon"; rm -rf "$work"' EXIT
quiet() {
	what=$1
	shift
	"$@" >"$work/said" 2>&1 || {
		sed 's/^/    /' "$work/said" >&2
		fail "$what"
	}
}
quiet "$rules has errors" promtool check rules "$rules"
quiet "$tests fails" promtool test rules "$tests"

# Every alert is raised by some test.
for alert in $(sed -n 's/^ *- alert: //p' "$rules"); do
	grep -qE "^ +alertname: $alert$" "$tests" || fail "no test raises $alert"
done

# Every expression of the dashboard is one; variables become values first.
quiet "$dashboard is not JSON" jq -e '.panels | length > 0' "$dashboard"
jq '{groups: [{name: "dashboard", rules: [.. | .expr? // empty | gsub("\\$[a-z]+"; "x")] |
	to_entries | map({record: "dashboard:panel\(.key)", expr: .value})}]}' "$dashboard" >"$work/dashboard.yml"
quiet "an expression of $dashboard has errors" promtool check rules "$work/dashboard.yml"
quiet "panels of $dashboard share an id" jq -e '[.panels[].id] | length == (unique | length)' "$dashboard"

# Metrics of the daemon, a line each; a histogram is three series.
grep -oE '(moecald|process)_[a-z_]+[a-z]' daemon/metrics.h | sort -u >"$work/known"
for histogram in $(sed -n '/define HISTOGRAMS/,/^enum/s/.*X([A-Z]*, "\([a-z_]*\)".*/\1/p' daemon/metrics.h) moecald_http_request_seconds; do
	printf '%s_bucket\n%s_sum\n%s_count\n' "$histogram" "$histogram" "$histogram"
done >>"$work/known"
for file in "$rules" "$tests" "$dashboard"; do
	for metric in $(grep -oE '(moecald|process)_[a-z_]+[a-z]' "$file" | sort -u); do
		grep -qx "$metric" "$work/known" || fail "$file knows a metric $metric, daemon/metrics.h does not"
	done
done
# ... and none of its own is forgotten.
for metric in $(sed -n 's/^\tX([A-Z_]*, "\([a-z_]*\)".*/\1/p' daemon/metrics.h); do
	grep -q "$metric" "$dashboard" || fail "$dashboard does not show $metric"
done

# A scrape of a service that has done something: every kind of series is there, and promtool likes it.
"$moecald" --listen 127.0.0.1:0 --state "$work/state" --allow tests/data --program "$moecal" >"$work/out" 2>"$work/log" &
daemon=$!
for _ in $(seq 100); do
	grep -q listening "$work/out" && break
	sleep 0.1
done
url=$(sed -n 's/^listening on //p' "$work/out" | head -1)
[ -n "$url" ] || fail "moecald does not start: $(tail -1 "$work/log")"
post() {
	curl -sSf -X POST "$url$1" -H "Content-Type: $2" --data-binary "$3" >"$work/answer" || fail "$1 is refused"
}
post /v1/models application/json '{"path": "qwen3moe-2m", "id": "tiny"}'
post '/v1/datasets?id=text' text/plain "$(seq -s ' ' 1 500)"
post /v1/jobs application/json '{"model": "tiny", "dataset": "text", "recipe": "FP8"}'
curl -sSf "$url/v1/jobs/$(jq -r .id "$work/answer")?wait=60" | jq -r .state | grep -qx succeeded || fail "the job did not succeed"
curl -sS "$url/v1/jobs/absent" >/dev/null
curl -sSf "$url/metrics" >"$work/metrics" || fail "/metrics is refused"
quiet "promtool check metrics complains" promtool check metrics <"$work/metrics"
[ ! -s "$work/said" ] || { cat "$work/said" >&2; fail "promtool check metrics has something to say"; }
for metric in $(cat "$work/known"); do
	grep -qE "^$metric(_bucket)?[{ ]" "$work/metrics" || fail "$metric is in daemon/metrics.h and not in a scrape"
done
grep -q '^moecald_jobs_finished_total{state="succeeded",reason=""} 1$' "$work/metrics" || fail "the finished job was not counted"
[ "$failures" -eq 0 ] && echo "monitoring: fine"
[ "$failures" -eq 0 ]
