#!/bin/bash
# client.sh - the commands that talk to the service, as a user meets them
#
# usage: client.sh MOECALD MOECAL
#
# The services are its own and listen where the system lets them. A stub plays services that lie: bash behind
# systemd-socket-activate, which answers with the files that answer() makes.
set -u
usage="usage: client.sh MOECALD MOECAL"
moecald=$(realpath "${1:?$usage}") moecal=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/../.." || exit 2
model=$PWD/tests/data/qwen3moe-2m
for tool in jq script systemd-socket-activate; do
	command -v "$tool" >/dev/null || {
		echo "client: $tool is missing (Debian: jq, bsdutils, systemd)" >&2
		exit 1
	}
done
work=$(mktemp -d /tmp/moecal-client-XXXXXX)
passed=0 failed=0
declare -A daemons
# shellcheck disable=SC2329 # called by the trap
finish() {
	local name
	for name in "${!daemons[@]}"; do
		kill "${daemons[$name]}" 2>/dev/null
		wait "${daemons[$name]}" 2>/dev/null
	done
	rm -rf "$work"
}
trap finish EXIT
trap 'exit 130' INT TERM
unset MOECAL_URL MOECAL_TOKEN MOECAL_TOKEN_FILE
export MOECAL_URL=http://127.0.0.1:1 # nobody is there

# --- checks: one call each ------------------------------------------------------------------------

good() { passed=$((passed + 1)); }
bad() {
	echo "client: $*" >&2
	sed 's/^/    /' "$work/stderr" | tail -5 >&2
	failed=$((failed + 1))
}
run() {
	"$@" >"$work/stdout" 2>"$work/stderr" </dev/null
}
said() { grep -aq -- "$1" "$work/stdout" "$work/stderr"; }
# expect NAME CODE TEXT COMMAND...: the command ends with CODE and says TEXT (a basic regular expression)
expect() {
	local name=$1 code=$2 text=$3 got
	shift 3
	run "$@"
	got=$?
	if [ $got -ne "$code" ]; then
		bad "$name: exit $got, not $code"
	elif ! said "$text"; then
		bad "$name: says nothing like '$text'"
	else
		good
	fi
}
# also NAME TEXT: so does the command before
also() { if said "$2"; then good; else bad "$1: says nothing like '$2'"; fi; }
never() { if said "$2"; then bad "$1: says '$2'"; else good; fi; }
# json NAME FILTER COMMAND...: the command succeeds and jq finds its output true
json() {
	local name=$1 filter=$2
	shift 2
	if ! run "$@"; then
		bad "$name: exit $?"
	elif ! jq -e "$filter" "$work/stdout" >/dev/null 2>>"$work/stderr"; then
		bad "$name: the answer is not '$filter': $(head -c 300 "$work/stdout")"
	else
		good
	fi
}
truth() {
	local name=$1
	shift
	if "$@" >"$work/truth"; then good; else bad "$name: not so: $*"; fi
}
# until_true COMMAND...: waits for it, at most 20 s
until_true() {
	local _
	for _ in $(seq 400); do
		"$@" && return 0
		sleep 0.05
	done
	return 1
}
lines_are_json() { [ -s "$1" ] && jq -c . "$1" >"$work/parsed" 2>/dev/null && [ "$(wc -l <"$work/parsed")" -eq "$(wc -l <"$1")" ]; }
is_plain() { ! grep -q "$(printf '[\001-\010\013-\037\177]')" "$@"; }

# --- services -------------------------------------------------------------------------------------

# service NAME OPTION...: sets url
service() {
	local name=$1
	shift
	: >"$work/$name.out"
	"$moecald" --state "$work/$name" --program "$work/program" --allow "$work/data" --free-percent 0 "$@" \
		>"$work/$name.out" 2>>"$work/$name.log" &
	daemons[$name]=$!
	until_true grep -q '^listening on ' "$work/$name.out" || {
		tail -5 "$work/$name.log" >&2
		echo "client: moecald does not start" >&2
		exit 1
	}
	url=$(sed -n 's/^listening on //p' "$work/$name.out" | head -1)
}
end_service() { # NAME SIGNAL
	kill "-$2" "${daemons[$1]}"
	wait "${daemons[$1]}" 2>/dev/null
	unset "daemons[$1]"
}

# What runs the jobs: moecal itself; while $work/spoil is there, every verdict is bad.
cat >"$work/program" <<END
#!/bin/bash
[ -e "$work/spoil" ] && [ "\$1" = run ] || exec "$moecal" "\$@"
arguments=() folder=
while [ \$# -gt 0 ]; do
	case \$1 in
	-o) folder=\$2 ;;
	--parent) set -- "\$1" \$\$ "\${@:3}" ;;
	esac
	arguments+=("\$1")
	shift
done
"$moecal" "\${arguments[@]}" || exit
sed -i 's/"valid": *true/"valid": false/' "\$folder/verdict.json"
exit 4
END
chmod +x "$work/program"

# --- data -----------------------------------------------------------------------------------------

mkdir "$work/data" "$work/here" "$work/stub"
ln -s "$model" "$work/outside"
cp -r "$model" "$work/data/model"
seq -s ' ' 1 600 >"$work/here/text.txt"
printf '{"body": "%s"}\n' 'a b c d e f' 'The road went on.' 'A third one.' >"$work/here/body.jsonl"
cp "$work/here/body.jsonl" "$work/here/text.txt" "$work/data/"
printf '{"model": "tiny", "dataset": "text", "recipe": "W4A16", "max_seq_length": 256}' >"$work/here/spec.json"
printf '# by hand\nmodel: tiny\ndataset: text\nrecipe: FP8\nmax_seq_length: 256\n' >"$work/here/spec.yaml"
printf '{"model": "tiny", "dataset": "text", "recipe": "W4A99", "seed": -1, "max_seq_len": 5}' >"$work/here/bad.json"
# npy SEQUENCES FILE: sequences of 512 token ids
npy() {
	printf '\x93NUMPY\x01\x00\x76\x00%-117s\n' "{'descr': '<i4', 'fortran_order': False, 'shape': ($1, 512), }" >"$2"
	head -c $(($1 * 512 * 4)) /dev/zero >>"$2"
}
npy 60 "$work/data/some.npy"
npy 1200 "$work/data/much.npy"
# a model with one NaN
cp -r "$model" "$work/data/nan"
header=$(od -An -t u8 -N 8 "$model/model.safetensors" | tr -d ' ')
begin=$(head -c $((header + 8)) "$model/model.safetensors" | tail -c "$header" |
	grep -o '"model.layers.0.mlp.experts.3.up_proj.weight":{[^}]*}' | sed 's/.*"data_offsets":\[\([0-9]*\),.*/\1/')
printf '\300\177' | dd of="$work/data/nan/model.safetensors" bs=1 seek=$((header + 8 + begin + 20)) conv=notrunc 2>/dev/null
cd "$work/here" || exit 2

# --- arguments ------------------------------------------------------------------------------------

for command in submit list get watch cancel rm fetch models datasets version; do
	expect "help of $command" 0 "usage: moecal $command" "$moecal" "$command" --help
done
expect 'an unknown command' 2 "did you mean 'submit'" "$moecal" sumbit
expect 'help of an unknown command' 2 "did you mean 'watch'" "$moecal" help wach
for case in list:--stat:--state get:--jsn:--json watch:--retry-fro:--retry-for fetch:--prefx:--prefix models:--lmit:--limit \
	datasets:--text-colum:--text-column version:--ulr:--url submit:--kye:--key; do
	IFS=: read -r command option right <<<"$case"
	expect "an unknown option of $command" 2 "did you mean $right" "$moecal" "$command" "$option" 1
done
expect 'an option of another command' 2 'there is no option -o$' "$moecal" submit spec.json -o out
expect 'a value for a flag' 2 '--json takes no value' "$moecal" get job_1 --json=yes
expect 'an option without its value' 2 '--url needs a value' "$moecal" get job_1 --url
expect 'a number that is none' 2 "from 0 to 1000000, not 'ten'" "$moecal" list --limit ten
expect 'a number out of its bounds' 2 "from -1000 to 1000, not '1001'" "$moecal" submit spec.json --priority 1001
expect 'no time at all' 2 "from 1 to 86400, not '0'" "$moecal" get job_1 --timeout 0
for command in get watch cancel rm fetch; do
	expect "$command without a job" 2 'the id of a job is needed' "$moecal" "$command"
	expect "$command of no id" 2 "'Job/1' is no id of a job" "$moecal" "$command" Job/1
	expect "$command of two jobs" 2 "unexpected 'job_2'" "$moecal" "$command" job_1 job_2
done
expect 'an empty id' 2 "'' is no id" "$moecal" get ''
long=$(head -c 60000 /dev/zero | tr '\0' a)
expect 'a very long id' 2 'is no id\|aaa\.\.\.$' "$moecal" get "$long"
truth 'is not told at full length' [ "$(wc -c <"$work/stderr")" -lt 2000 ]
expect 'words behind --' 2 "'-x' is no id of a job" "$moecal" get -- -x
expect 'a very long filter' 2 'model: has more than' "$moecal" list --model "$long"
expect 'a spec is needed' 2 'a SPEC, or --model' "$moecal" submit
expect 'two specs' 2 'one SPEC is enough' "$moecal" submit spec.json spec.yaml
expect 'a spec that is not there' 2 'none.yaml: does not exist' "$moecal" submit none.yaml
expect 'a folder as spec' 2 'is a folder' "$moecal" submit "$work"
expect 'an empty spec' 2 'the document is empty' "$moecal" submit -
expect 'a spec that is no object' 2 'must be an object' sh -c "echo '[]' | '$moecal' submit -"
expect 'half a spec' 2 '-: not valid JSON: line ' sh -c "echo '{\"model\": ' | '$moecal' submit -"
expect 'a key with a space' 2 "'a b'" "$moecal" submit spec.json --key 'a b'
expect 'a key that is empty' 2 '1 to 64 letters' "$moecal" submit spec.json --key ''
expect 'a column of nothing' 2 'how to read an --upload' "$moecal" submit spec.json --text-column body
expect 'an upload of no known kind' 2 'must end with .jsonl' "$moecal" submit spec.json --upload spec.yaml
expect 'an upload that is not there' 2 'none.txt: does not exist' "$moecal" submit spec.json --upload none.txt
: >empty.txt
expect 'an upload that is empty' 2 'empty.txt: is empty' "$moecal" datasets upload empty.txt
expect 'no folder for the files' 2 'needs the name of a folder' "$moecal" fetch job_1 -o ''
expect 'an unknown action' 2 "'ad' is none of list, add, get, rm" "$moecal" models ad x
expect 'an action of another command' 2 "'upload' is none of" "$moecal" models upload x
expect 'an action without its object' 2 'add needs the path of a model' "$moecal" models add
expect 'an empty object' 2 'rm needs the id of a dataset' "$moecal" datasets rm ''
expect 'a name that is none' 2 "'A B' is no id" "$moecal" datasets add text.txt --id 'A B'
expect 'a name for a list' 2 'are for what is made' "$moecal" models list --id x

# --- addresses ------------------------------------------------------------------------------------

expect 'nobody there' 3 'http://127.0.0.1:1: the service cannot be reached: Connection refused' "$moecal" list
also 'nobody there: what to do' '--url or MOECAL_URL'
expect 'nobody there, as JSON' 3 '^{"event":"failed","code":"unreachable","where":"http://127.0.0.1:1",.*"exit":3}$' "$moecal" get job_1 --json
expect 'nobody there for a submit' 3 'with --key [0-9a-f]\{32\} the same command can be repeated safely' "$moecal" submit spec.json
expect 'nobody to watch' 3 'cannot be reached' "$moecal" watch job_1
expect 'no socket there' 3 "unix:$work/none: .*No such file" "$moecal" list --url "unix:$work/none"
expect 'a host that is not there' 3 'nohost.invalid' "$moecal" list --url http://nohost.invalid
expect 'an empty address' 2 '--url: is empty' "$moecal" list --url ''
expect 'an address without a scheme' 2 "'localhost:8460' is no address" "$moecal" list --url localhost:8460
expect 'an address of another kind' 2 'is no address: http://HOST:PORT, https://HOST or unix:PATH' "$moecal" list --url ftp://localhost
expect 'a port that is none' 2 'is no address' "$moecal" list --url http://localhost:99999
expect 'an address with a password' 2 'belongs into MOECAL_TOKEN_FILE' "$moecal" list --url http://me:secret@localhost
never 'an address with a password: it is not told' secret
expect 'an address with a query' 2 'more than host, port and path' "$moecal" list --url 'http://localhost?x=1'
expect 'a very long address' 2 'has more than 2048' "$moecal" list --url "http://localhost/$long"
expect 'a socket without a path' 2 'needs the path of a socket' "$moecal" list --url unix:
expect 'a very long socket' 2 'at most 107' "$moecal" list --url "unix:$long"
expect 'MOECAL_URL that is none' 2 "MOECAL_URL: 'nonsense' is no address" env MOECAL_URL=nonsense "$moecal" list

# --- models and datasets --------------------------------------------------------------------------

service main --listen 127.0.0.1:0 --listen "unix:$work/socket" --jobs 1
export MOECAL_URL=$url
expect 'no models' 0 '^model  *type  *layers' "$moecal" models
json 'no models, as JSON' '.models == [] and .next_cursor == null' "$moecal" models list --json
expect 'add a model' 0 'layers  *4, 4 of them with 8 experts, 2 a token' "$moecal" models add model --id tiny
json 'add a model without a name' '.id | startswith("model_")' "$moecal" models add "$work/data/model" --json
made=$(jq -r .id "$work/stdout")
expect 'the name is taken' 2 'there is a model' "$moecal" models add model --id tiny
expect 'a model outside of the allowed folders' 2 'outside of the allowed folders' "$moecal" models add "$work/outside"
expect 'a model that is not there' 2 'none: does not exist' "$moecal" models add none
expect 'a file as a model' 2 'text.txt: ' "$moecal" models add text.txt
mkdir "$work/data/folder"
expect 'a folder that is no checkpoint' 2 'no model.safetensors' "$moecal" models add folder
expect 'models' 0 '^tiny  *qwen3_moe  *4  *8  *2.30 M  *4.6 MB BF16' "$moecal" models
expect 'the newest model' 0 "^$made " "$moecal" models --limit 1
also 'there are more models' 'more follow; --limit 0 shows all'
json 'the newest model, as JSON' '(.models | length) == 1 and .next_cursor != null' "$moecal" models list --limit 1 --json
json 'all models' '.models | length == 2' "$moecal" models list --limit 0 --json
expect 'get a model' 0 '^digest  *sha256:[0-9a-f]\{64\}$' "$moecal" models get tiny
json 'get a model as JSON' '.id == "tiny" and .experts == 8' "$moecal" models get tiny --json
expect 'get no model' 2 'none: there is no such model' "$moecal" models get none
json 'rm a model' '.deleted and (.id | startswith("model_"))' "$moecal" models rm "$made" --json
expect 'rm no model' 2 'there is no such model' "$moecal" models rm "$made"

expect 'no datasets' 0 '^dataset  *kind  *samples' "$moecal" datasets
expect 'add a dataset' 0 '^data  *60 samples, .*npy' "$moecal" datasets add some.npy --id some
expect 'add one by its absolute path' 0 'much.npy' "$moecal" datasets add "$work/data/much.npy" --id much
expect 'data outside of the allowed folders' 2 'outside of the allowed folders' "$moecal" datasets add /etc/passwd
expect 'the wrong column' 2 'the text column "text"' "$moecal" datasets add body.jsonl --id body
expect 'the right column' 0 '^text column  *body$' "$moecal" datasets add body.jsonl --id body --text-column body
expect 'upload a dataset' 0 '^data  *1 sample, 2.3 kB, txt$' "$moecal" datasets upload text.txt --id text
json 'upload with a column' '.samples == 3 and .text_column == "body"' "$moecal" datasets upload body.jsonl --text-column=body --json
uploaded=$(jq -r .id "$work/stdout")
expect 'upload under a name that is taken' 2 'there is a dataset' "$moecal" datasets upload text.txt --id text
cp spec.yaml nonsense.npy
expect 'upload nonsense' 2 'npy' "$moecal" datasets upload nonsense.npy
expect 'datasets' 0 '^text  *txt  *1  *2.3 kB  (uploaded)$' "$moecal" datasets list
json 'datasets as JSON' '[.datasets[].id] | contains(["text", "body", "much", "some"])' "$moecal" datasets --json
expect 'get a dataset' 0 '^sha256  *[0-9a-f]\{64\}$' "$moecal" datasets get body
expect 'get no dataset' 2 'there is no such dataset' "$moecal" datasets get none
expect 'rm a dataset' 0 "^$uploaded: deleted$" "$moecal" datasets rm "$uploaded"
expect 'rm no dataset' 2 'there is no such dataset' "$moecal" datasets rm "$uploaded" --json
also 'rm no dataset, as JSON' '^{"type":"urn:moecal:problem:not-found"'

# --- submit ---------------------------------------------------------------------------------------

expect 'submit and wait' 0 'verdict: valid' "$moecal" submit spec.json --wait
first=$(head -1 "$work/stdout")
also 'the first line is the job' '^job_[a-z0-9]\{26\}$'
also 'the states' "^$first: running$"
also 'the end' "^$first: succeeded$"
also 'coverage' 'starved by routing alone'
also 'what to do next' "moecal fetch $first -o DIR"
truth 'a line a layer' [ "$(grep -c '^layer [1-4] of 4 done, ' "$work/stderr")" -eq 4 ]
truth 'no bar in a file' is_plain "$work/stderr" "$work/stdout"
expect 'submit without waiting' 0 '^job_[a-z0-9]\{26\}$' "$moecal" submit spec.yaml
json 'options win over the file' '.state == "queued" and .spec.seed == 7 and .priority == null and .spec.priority == 3' \
	"$moecal" submit spec.yaml --seed 7 --priority 3 --json
json 'submit by options' '.spec.max_seq_length == 128 and .spec.metadata.for == "me" and .spec.deadline_seconds == 50 and .spec.keep_seconds == 99' \
	"$moecal" submit --model tiny --dataset text --recipe FP8 --max-seq-length=128 --metadata '{"for": "me"}' --deadline-seconds 50 --keep-seconds 99 --json
json 'a spec from standard input' '.spec.recipe.QuantizationModifier.scheme == "W8A16"' \
	sh -c "sed 's/W4A16/W8A16/' spec.json | '$moecal' submit - --json"
expect 'submit with the events as JSON' 0 '"type":"layer"' "$moecal" submit spec.json --wait --json
truth 'the job and its events are lines of JSON' lines_are_json "$work/stdout"
truth 'the job comes first' [ "$(head -1 "$work/stdout" | jq -r .state)" = queued ]
truth 'the end comes last' [ "$(tail -1 "$work/stdout" | jq -r .data.state)" = succeeded ]
truth 'nothing else is said' [ ! -s "$work/stderr" ]
expect 'a bad spec' 2 '/seed: is -1, must be' "$moecal" submit bad.json
also 'a bad spec: the unknown key' "/max_seq_len: unknown key 'max_seq_len'; did you mean 'max_seq_length'"
also 'a bad spec: the recipe' "/recipe: 'W4A99' is not a preset"
expect 'a bad spec, as JSON' 2 '"errors":\[{"pointer":"/' "$moecal" submit bad.json --json
expect 'unknown model and data' 2 "/model: 'no-model' is no registered model" "$moecal" submit --model no-model --dataset no-data --recipe FP8
also 'unknown model and data, both' "/dataset: 'no-data' is no registered dataset"
expect 'a value that the service refuses' 2 '/keep_seconds: is 1, must be' "$moecal" submit spec.json --keep-seconds 1
expect 'a job that fails' 1 'model.layers.0.mlp.experts.3.up_proj.weight' "$moecal" submit spec.json --model nan --wait
also 'why it failed' ': failed, '
expect 'past its deadline' 1 'failed, deadline-exceeded' "$moecal" submit spec.json --dataset much --num-calibration-samples 1200 --threads 1 --deadline-seconds 1 --wait
slow=$(head -1 "$work/stdout")
touch "$work/spoil"
expect 'a bad verdict' 4 'verdict: NOT VALID' "$moecal" submit spec.json --wait
also 'a bad verdict: why' 'failed, verdict-failed'
spoiled=$(head -1 "$work/stdout")
rm "$work/spoil"
expect 'watch a bad verdict' 4 'verdict-failed' "$moecal" watch "$spoiled"
expect 'the same as JSON' 4 '"code":"verdict-failed"' "$moecal" watch "$spoiled" --json

expect 'a key' 0 '^job_' "$moecal" submit spec.json --key night-17
keyed=$(cat "$work/stdout")
expect 'the same key is the same job' 0 "^$keyed$" "$moecal" submit spec.json --key night-17
also 'and says so' 'the key was used before'
expect 'waiting for it with the key' 0 'verdict: valid' "$moecal" submit spec.json --key night-17 --wait
expect 'the same key for another job' 2 'was used for another request' "$moecal" submit spec.json --key night-17 --seed 9

expect 'upload and wait' 0 'verdict: valid' "$moecal" submit --model tiny --recipe FP8 --upload text.txt --wait --key up-1
also 'which dataset it became' 'text.txt is dataset dataset_'
sent=$(head -1 "$work/stdout")
expect 'the same key uploads nothing new' 0 "^$sent$" "$moecal" submit --model tiny --recipe FP8 --upload text.txt --key up-1
json 'two more datasets' '[.spec.dataset[].path] | length == 3 and .[0] == "text"' \
	"$moecal" submit spec.json --upload text.txt --upload body.jsonl --text-column body --json
expect 'a bad spec with an upload' 2 '/recipe: ' "$moecal" submit --model tiny --recipe NO --upload text.txt
also 'a bad spec with an upload: what stays' '--dataset ID uses it'
expect 'an upload that is no data' 2 'npy' "$moecal" submit --model tiny --recipe FP8 --upload nonsense.npy

# --- list, get, watch -----------------------------------------------------------------------------

"$moecal" watch "$("$moecal" list --limit 1 --json | jq -r '.jobs[0].id')" >/dev/null 2>&1 # the queue is empty
expect 'list' 0 '^job  *state  *layers  *model  *recipe  *created$' "$moecal" list
also 'list: a job' "^$first succeeded  *4/4  *tiny  *W4A16  *20"
also 'list: one that failed' "^$slow failed  *[-0-9/]*  *tiny "
expect 'list by state' 0 "^$spoiled failed" "$moecal" list --state failed,canceled
never 'list by state: nothing else' succeeded
json 'list by model' '[.jobs[].spec.model] | unique == ["nan"]' "$moecal" list --model nan --json
json 'list of an unknown model' '.jobs == []' "$moecal" list --model none --json
expect 'list of an unknown state' 2 "'done' is none of queued, running" "$moecal" list --state 'done'
expect 'a page' 0 'more follow; --limit 0 shows all' "$moecal" list --limit 2
truth 'a page has so many lines' [ "$(wc -l <"$work/stdout")" -eq 3 ]
json 'a page as JSON' '(.jobs | length) == 3 and .next_cursor != null' "$moecal" list --limit 3 --json
json 'all' '(.jobs | length) > 10 and .next_cursor == null and ([.jobs[].id] | sort | reverse) == [.jobs[].id]' "$moecal" list --limit 0 --json
expect 'get' 0 '^state  *succeeded$' "$moecal" get "$first"
also 'get: the plan' '^plan  *4 layers, 8 experts'
also 'get: dates' '^finished  *20'
expect 'get one that failed' 0 '^reason  *deadline-exceeded: ' "$moecal" get "$slow"
json 'get as JSON' '.state == "succeeded" and .progress.layers_done == 4' "$moecal" get "$first" --json
expect 'get no job' 2 'job_none: there is no such job' "$moecal" get job_none
expect 'get over a socket' 0 '^state  *succeeded$' "$moecal" get "$first" --url "unix:$work/socket"
expect 'an address with a slash' 0 '^state  *succeeded$' "$moecal" get "$first" --url "$MOECAL_URL/"
expect 'watch a finished job' 0 'verdict: valid' "$moecal" watch "$first"
truth 'it tells every layer' [ "$(grep -c '^layer [1-4] of 4 done, ' "$work/stderr")" -eq 4 ]
expect 'watch as JSON' 0 '"type":"finished"' "$moecal" watch "$first" --json
truth 'its lines are JSON' lines_are_json "$work/stdout"
truth 'its events are in order' jq -se '[.[].id] | . == sort and length > 6' "$work/stdout"
expect 'watch one that failed' 1 'deadline-exceeded' "$moecal" watch "$slow"
expect 'watch no job' 2 'there is no such job' "$moecal" watch job_none
expect 'a bar on a terminal' 0 'calibrate [ 0-9]*% \[#*\.*\] ' script -qefc "'$moecal' watch $first" /dev/null
also 'the verdict below it' 'verdict: valid'
never 'no lines beside the bar' 'layer 1 of 4 done'
narrow() { script -qefc "stty cols 70; '$moecal' watch $first" /dev/null; }
expect 'a narrow terminal' 0 'verdict: valid' narrow
# shellcheck disable=SC2016 # awk's, not the shell's
truth 'a bar fits into it' awk 'BEGIN { RS = "\r" } /^calibrate/ { sub(/\033.*/, ""); if (length($0) > 69) exit 1 }' "$work/stdout"
expect 'output that cannot be written' 1 'standard output cannot be written' sh -c "'$moecal' list >/dev/full"
expect 'no standard output' 1 'standard output cannot be written' sh -c "'$moecal' fetch $first -o closed >&-"
truth 'nothing is printed into files' cmp closed/model/config.json "$work/main/jobs/$first/folder/model/config.json"
expect 'JSON that cannot be written' 1 'cannot be written' sh -c "'$moecal' watch $first --json >/dev/full"
truth 'a reader that has enough' bash -c "set -o pipefail; '$moecal' list --limit 0 --json | true"
expect 'version of the service' 0 '^service  *http' "$moecal" version --url "$MOECAL_URL"
also 'version of the service: its API' '^  api  *v1$'
json 'version as JSON' '.service.api == "v1" and .moecal == .service.moecal' "$moecal" version --url "$MOECAL_URL" --json
expect 'version without a service' 0 '^kernel ' "$moecal" version

# --- fetch ----------------------------------------------------------------------------------------

expect 'fetch' 0 'moecal: 12 files, .* in out$' "$moecal" fetch "$first" -o out
also 'fetch: each file' ' out/model/model.safetensors$'
truth 'the manifest comes last' [ "$(tail -1 "$work/stdout" | sed 's/.* //')" = out/manifest.json ]
expect 'what was fetched is whole' 0 'verdict: valid' "$moecal" verify out
expect 'fetch again' 0 '; 12 were there$' "$moecal" fetch "$first" -o out
json 'fetch as JSON' '.folder == "out" and (.files | length) == 12 and all(.files[]; .fetched == false)' "$moecal" fetch "$first" -o out --json
expect 'fetch without a name for it' 0 "in $first$" "$moecal" fetch "$first"
truth 'the folder is named as the job' cmp "$first/manifest.json" out/manifest.json
expect 'fetch a part' 0 'moecal: 6 files' "$moecal" fetch "$first" -o part --prefix model/
truth 'only that part' [ "$(ls part)" = model ]
expect 'fetch no part' 2 'no file with this prefix' "$moecal" fetch "$first" -o none --prefix nothing
truth 'nothing is made for it' [ ! -e none ]
rm out/model/model.safetensors
head -c 1000000 part/model/model.safetensors >out/model/model.safetensors.part
expect 'go on with half a file' 0 'out/model/model.safetensors$' "$moecal" fetch "$first" -o out
truth 'the halves fit' cmp out/model/model.safetensors part/model/model.safetensors
truth 'the half is gone' [ ! -e out/model/model.safetensors.part ]
rm out/spec.json && echo 'of another job' >out/spec.json.part
expect 'half of another file' 0 'out/spec.json$' "$moecal" fetch "$first" -o out
truth 'is begun again' cmp out/spec.json "$first/spec.json"
rm out/spec.json && head -c 100000 /dev/zero >out/spec.json.part
expect 'more than the whole' 0 'out/spec.json$' "$moecal" fetch "$first" -o out
truth 'is begun again, too' cmp out/spec.json "$first/spec.json"
echo 'mine' >out/spec.json
expect 'another file is in the way' 2 'out/spec.json: is there and is another file' "$moecal" fetch "$first" -o out
truth 'it is not touched' [ "$(cat out/spec.json)" = mine ]
expect 'a file instead of a folder' 2 'text.txt: is in the way' "$moecal" fetch "$first" -o text.txt
expect 'fetch a damaged file' 1 'verdict.json' "$moecal" fetch "$spoiled" -o damaged
truth 'a damaged folder has no manifest' [ ! -e damaged/manifest.json ]
truth 'nor the damaged file' [ ! -e damaged/verdict.json ]
expect 'fetch what failed early' 1 'left no files' "$moecal" fetch "$slow"
expect 'fetch no job' 2 'there is no such job' "$moecal" fetch job_none
expect 'fetch on a terminal' 0 '100%  [0-9.]* MB of' script -qefc "'$moecal' fetch $first -o terminal" /dev/null

# --- cancel, rm -----------------------------------------------------------------------------------

much=(--model tiny --dataset much --recipe FP8 --num-calibration-samples 1200 --threads 1)
runs() { [ "$("$moecal" get "$1" --json 2>/dev/null | jq -r .state)" = running ]; }
"$moecal" submit "${much[@]}" >running 2>/dev/null
"$moecal" submit "${much[@]}" >queued 2>/dev/null
running=$(cat running) queued=$(cat queued)
until_true runs "$running"
expect 'get one that runs' 0 '^state  *running$' "$moecal" get "$running"
expect 'fetch one that runs' 2 'the job is running; wait for its end' "$moecal" fetch "$running"
expect 'rm one that runs' 2 'the job is running; cancel it first' "$moecal" rm "$running"
expect 'rm its model' 2 'in use' "$moecal" models rm tiny
expect 'cancel one that waits' 0 "^$queued: canceled$" "$moecal" cancel "$queued"
expect 'cancel it again' 0 "^$queued: canceled$" "$moecal" cancel "$queued"
expect 'watch what was canceled' 1 "^$queued: canceled$" "$moecal" watch "$queued"
: >"$work/watch.err"
"$moecal" watch "$running" >"$work/watch.out" 2>>"$work/watch.err" &
watcher=$!
until_true grep -q running "$work/watch.err"
json 'cancel one that runs' '.state == "canceling" or .state == "canceled"' "$moecal" cancel "$running" --json
wait $watcher
truth 'who watches it ends with 1' [ $? -eq 1 ]
truth 'who watches it is told' grep -q "^$running: canceled" "$work/watch.err"
expect 'cancel what has succeeded' 2 'succeeded already' "$moecal" cancel "$first"
expect 'cancel no job' 2 'there is no such job' "$moecal" cancel job_none
expect 'rm' 0 "^$queued: deleted$" "$moecal" rm "$queued"
json 'rm as JSON' ".id == \"$running\" and .deleted" "$moecal" rm "$running" --json
expect 'rm it again' 2 'there is no such job' "$moecal" rm "$running"

# --- signals, restarts ----------------------------------------------------------------------------

# stopped SIGNAL CODE COMMAND...: the command, which waits for a job, gets a signal once the job runs
stopped() {
	local signal=$1 code=$2 waiter
	shift 2
	"$@" >"$work/stdout" 2>"$work/stderr" </dev/null &
	waiter=$!
	until_true grep -q 'running$\|"state":"running"' "$work/stdout" "$work/stderr"
	kill "-$signal" $waiter
	wait $waiter
	local got=$?
	[ $got -eq "$code" ] || echo "    exit $got" >>"$work/stderr"
	[ $got -eq "$code" ]
}
if stopped TERM 75 "$moecal" submit "${much[@]}" --wait; then good; else bad 'SIGTERM while waiting: not 75'; fi
also 'SIGTERM: the job goes on' 'the job goes on in the service; moecal watch job_'
also 'SIGTERM: how to come back' 'the same command with --key [0-9a-f]* waits for it again'
waited=$(head -1 "$work/stdout")
truth 'it does go on' runs "$waited"
if stopped INT 130 "$moecal" watch "$waited" --json; then good; else bad 'SIGINT while watching: not 130'; fi
also 'SIGINT: the job goes on' "moecal watch $waited follows it again"
truth 'and it does' runs "$waited"
"$moecal" cancel "$waited" >/dev/null

# The service is killed while somebody waits, and comes back on the same port.
some=(--model tiny --dataset some --recipe FP8 --threads 1)
: >"$work/killed.err"
"$moecal" submit "${some[@]}" --wait >"$work/killed.out" 2>>"$work/killed.err" &
waiter=$!
until_true grep -q 'layer 1 of' "$work/killed.err"
end_service main KILL
until_true grep -q 'trying again' "$work/killed.err"
service main --listen "${MOECAL_URL#http://}" --listen "unix:$work/socket" --jobs 1
wait $waiter
truth 'a kill -9 of the service does not end who waits' [ $? -eq 0 ]
truth 'it is told that the service is away' grep -q 'cannot be reached.*; trying again for 600 s' "$work/killed.err"
truth 'the job went on' grep -q 'attempt 2$' "$work/killed.err"
truth 'each layer is told once' [ "$(grep -c '^layer [1-4] of 4 done' "$work/killed.err")" -eq 4 ]
truth 'it ends well' grep -q 'verdict: valid' "$work/killed.out"
"$moecal" submit "${much[@]}" >"$work/left" 2>/dev/null
: >"$work/away.err"
"$moecal" watch "$(cat "$work/left")" --retry-for 0 >/dev/null 2>>"$work/away.err" &
waiter=$!
until_true grep -q 'running' "$work/away.err"
end_service main TERM
wait $waiter
truth 'a service that stays away ends with 3' [ $? -eq 3 ]
truth 'how to come back is told' grep -q "moecal watch $(cat "$work/left") follows it again" "$work/away.err"

# --- tokens ---------------------------------------------------------------------------------------

for scope in read submit; do
	"$moecald" --make-token "$scope-er" $scope >"$work/made"
	sed -n 's/^token: //p' "$work/made" >"$work/token.$scope"
	sed -n 's/^line for the token file: //p' "$work/made" >>"$work/tokens"
done
chmod 600 "$work/tokens"
service guarded --listen 127.0.0.1:0 --token-file "$work/tokens"
export MOECAL_URL=$url
expect 'no token' 2 'a token is needed: put it into MOECAL_TOKEN, or the name of its file into MOECAL_TOKEN_FILE' "$moecal" list
expect 'no token, as JSON' 2 '^{"type":"urn:moecal:problem:token-missing"' "$moecal" list --json
expect 'no token for an upload' 2 'a token is needed' "$moecal" datasets upload text.txt
expect 'no token to watch' 2 'a token is needed' "$moecal" watch job_1
expect 'an unknown token' 2 'does not know the token of MOECAL_TOKEN$' env MOECAL_TOKEN=nonsense "$moecal" list
expect 'MOECAL_TOKEN' 0 '^job ' env MOECAL_TOKEN="$(cat "$work/token.read")" "$moecal" list
expect 'MOECAL_TOKEN_FILE' 0 '^job ' env MOECAL_TOKEN_FILE="$work/token.read" "$moecal" list
expect 'MOECAL_TOKEN wins' 2 'the token of MOECAL_TOKEN$' env MOECAL_TOKEN=nonsense MOECAL_TOKEN_FILE="$work/token.read" "$moecal" list
expect 'a scope that is too small' 2 'needs the scope submit' env MOECAL_TOKEN_FILE="$work/token.read" "$moecal" submit spec.json
expect 'a scope that is enough' 0 '^dataset  *text$' env MOECAL_TOKEN_FILE="$work/token.submit" "$moecal" datasets upload text.txt --id text
expect 'a token file that is not there' 2 'MOECAL_TOKEN_FILE: none: does not exist' env MOECAL_TOKEN_FILE=none "$moecal" list
expect 'a token file that is empty' 2 'empty.txt: holds no token' env MOECAL_TOKEN_FILE=empty.txt "$moecal" list
expect 'a token file of another kind' 2 'one token and nothing else' env MOECAL_TOKEN_FILE=spec.json "$moecal" list
expect 'a token of two words' 2 'MOECAL_TOKEN: must hold one token' env MOECAL_TOKEN='a b' "$moecal" list
end_service guarded TERM

# --- services that lie ----------------------------------------------------------------------------

cat >"$work/stub.sh" <<'END'
#!/bin/bash
cd "$1" || exit
read -r method path _
path=${path%%\?*} length=0
while IFS= read -r line && line=${line%$'\r'} && [ -n "$line" ]; do
	echo "$method $path: $line" >>requests
	case $line in Content-Length:*) length=${line#*: } ;; esac
done
[ "$length" -eq 0 ] || head -c "$length" >/dev/null
name=$method${path//\//_}
[ ! -e "$name.sleep" ] || exec sleep 4
for once in "$name.1" "$name.2"; do
	[ -e "$once" ] || continue
	mv "$once" "$name.now"
	exec cat "$name.now"
done
[ ! -e "$name" ] || exec cat "$name"
printf 'HTTP/1.1 404 Not Found\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>'
END
# answer METHOD PATH STATUS TYPE [HEADER]: standard input is the body; once for each PATH that ends with .1, .2
answer() {
	cat >"$work/body"
	{
		printf 'HTTP/1.1 %s\r\nContent-Type: %s\r\nContent-Length: %s\r\nConnection: close\r\n' "$3" "$4" "$(wc -c <"$work/body")"
		[ -z "${5:-}" ] || printf '%s\r\n' "$5"
		printf '\r\n'
		cat "$work/body"
	} >"$work/stub/$1${2//\//_}"
}
say() { answer "$1" "$2" "200 OK" application/json <<<"$3"; }
systemd-socket-activate --accept --inetd -l "$work/stub.socket" bash "$work/stub.sh" "$work/stub" >/dev/null 2>&1 &
daemons[stub]=$!
until_true [ -S "$work/stub.socket" ]
export MOECAL_URL=unix:$work/stub.socket

busy='{"title": "The queue is full", "detail": "as many as the settings allow"}'
answer GET /v1/jobs/busy '503 Busy' application/problem+json 'Retry-After: 1' <<<"$busy"
"$moecal" get busy >"$work/busy.out" 2>"$work/busy.err" &
busy_one=$!
touch "$work/stub/GET_v1_jobs_silent.sleep"
"$moecal" get silent --timeout 1 >"$work/silent.out" 2>"$work/silent.err" &
silent_one=$!
expect 'something else answers' 3 'answers with status 404, and not as moecald does' "$moecal" get job_1
answer GET /v1/jobs/page '200 OK' text/html <<<'<html>'
expect 'a page instead of a job' 3 'something answers there, but not as moecald does' "$moecal" get page
say GET /v1/jobs/empty '{}'
expect 'another document than a job' 3 'not as moecald does' "$moecal" get empty
say GET /v1/jobs/half '{"id": "half", "state": '
expect 'half a document' 3 'not as moecald does' "$moecal" get half
: >"$work/stub/GET_v1_jobs_nothing"
expect 'no answer at all' 3 'cannot be reached: Empty reply' "$moecal" get nothing
answer GET /v1/jobs/moved '301 Moved' text/html 'Location: http://127.0.0.1:1/' <<<'moved'
expect 'an answer that leads elsewhere' 3 'answers with status 301' "$moecal" get moved
answer GET /v1/jobs/broken '500 Broken' application/problem+json <<<'{"title": "Something went wrong here", "detail": "the log has the reason"}'
expect 'a bug of the service' 1 'Something went wrong here: the log has the reason' "$moecal" get broken
answer GET /v1/jobs/soon.1 '503 Busy' application/problem+json 'Retry-After: 1' <<<"$busy"
say GET /v1/jobs/soon '{"id": "soon", "state": "queued"}'
expect 'a busy service' 0 'The queue is full: as many as the settings allow (trying again in 1 s)' "$moecal" get soon
say GET /v1/jobs/odd '{"id": "odd", "state": "fail\u001b[2Jed", "reason": {"code": "\u009b5m", "detail": "bell\u0007"}, "spec": {"model": "\u007f", "dataset": 5, "recipe": []}, "plan": 7, "progress": {"layers_done": -1e300}}'
expect 'odd values' 0 '^state  *fail?\[2Jed$' "$moecal" get odd
truth 'drive no terminal' is_plain "$work/stdout"
say GET /v1/models '{"models": [{"id": 5}, 7, {"bytes": -1, "layers": "x"}], "next_cursor": null}'
expect 'an odd list' 0 '^model ' "$moecal" models
say GET /v1/datasets '{"datasets": {}, "next_cursor": null}'
expect 'no list' 1 'has no list of datasets' "$moecal" datasets
say GET /v1/datasets '{"datasets": [], "next_cursor": "more"}'
expect 'pages without end' 0 'more follow' timeout 10 "$moecal" datasets --limit 0
wait $silent_one
truth 'a service that says nothing ends with 3' [ $? -eq 3 ]
truth 'a service that says nothing: what to do' grep -q 'said nothing for 1 seconds (--timeout waits longer)' "$work/silent.err"

# events
events() { answer GET "/v1/jobs/$1/events$2" '200 OK' text/event-stream; }
event() { printf 'id: %s\nevent: %s\ndata: {"id":%s,"type":"%s","data":%s}\n\n' "$1" "$2" "$1" "$2" "$3"; }
say GET /v1/jobs/broke/verdict '{"valid": true, "checks": [{"name": "\u001b[1m", "passed": true, "counted": 1, "examples": ["\u001b"]}]}'
{ event 1 state '{"state": "running"}' && event 2 layer '{"layers_done": 1, "layers_total": 2, "seconds": 1}' && printf 'id: 3\nevent: la'; } | events broke .1
{ event 3 layer '{"layers_done": 2, "layers_total": 2, "seconds": 1}' && event 4 state '{"state": "succeeded"}'; } | events broke .2
expect 'events that break off' 0 '^layer 2 of 2 done' "$moecal" watch broke
truth 'go on behind the last whole one' grep -q 'GET /v1/jobs/broke/events: Last-Event-ID: 2' "$work/stub/requests"
truth 'and are told once' [ "$(grep -c '^layer 1 of 2 done' "$work/stderr")" -eq 1 ]
truth 'a verdict drives no terminal' is_plain "$work/stdout"
{ event 1 state '{"state": "run\u001b[2Jning"}' && event 2 progress '{"phase": "\u001b[31m", "layers_total": 1}' && event 3 warning '{"text": "\u001b]0;x\u0007"}' &&
	event 4 started '{"layers_total": -5}' && event 5 state '{"state": "failed", "reason": {"code": "\u001b", "detail": "\u001b"}}'; } | events odd ''
expect 'odd events' 1 'failed' "$moecal" watch odd
truth 'drive no terminal either' is_plain "$work/stderr"
printf 'id: 1\nevent: state\ndata: {"id": \033[2J\n\n' | events garbage ''
expect 'an event that is no JSON' 1 'an event of the service: ' "$moecal" watch garbage
truth 'is told in plain text' is_plain "$work/stderr"
answer GET /v1/jobs/html/events '200 OK' text/html <<<'<html>'
expect 'a page instead of events' 3 'not as moecald does' "$moecal" watch html
answer POST /v1/jobs '201 Created' application/json <<<'{"id": "late", "state": "queued"}'
: >"$work/stub/GET_v1_jobs_late_events.1"
event 1 state '{"state": "canceled"}' | events late .2
expect 'a service that goes away after a submit is waited for' 1 'late: canceled' "$moecal" submit spec.json --wait
answer POST /v1/jobs '201 Created' application/json <<<'{"id": "../x", "state": "queued"}'
expect 'an id that is none' 3 'not as moecald does' "$moecal" submit spec.json --wait
: >"$work/stub/POST_v1_jobs"
expect 'an answer that is lost' 3 'with --key lost-1 the same command can be repeated safely' "$moecal" submit spec.json --key lost-1
truth 'the key was sent' grep -q '^POST /v1/jobs: Idempotency-Key: lost-1$' "$work/stub/requests"

# files: lists JOB PATH SHA256 BYTES
lists() { say GET "/v1/jobs/$1/artifacts" "{\"artifacts\": [{\"path\": \"$2\", \"sha256\": \"$3\", \"bytes\": $4}], \"next_cursor\": null}"; }
sha256=$(printf 0123456789 | sha256sum | cut -d' ' -f1)
for path in ../evil /tmp/evil a/../../evil a//evil ./evil .evil a/.evil evil/ '' 'e\u001b[2Jvil' 'e vil' 'e\\\\vil' 'e%2e'; do
	lists unsafe "$path" "$sha256" 10
	expect "a file named '$path'" 1 "it lists a file '" "$moecal" fetch unsafe -o lies/in
	truth "a file named '$path' is told in plain text" is_plain "$work/stderr"
done
truth 'nothing is written for them' [ ! -e lies ]
lists file data.bin "$sha256" 10
file() { answer GET "/v1/jobs/file/artifacts/data.bin$1" "$2" application/octet-stream; }
printf 0123456789 | file '' '200 OK'
expect 'a file' 0 'lies/data.bin$' "$moecal" fetch file -o lies
rm lies/data.bin && printf 01234 >lies/data.bin.part
printf 56789 | file .1 '206 Partial Content'
expect 'half a file' 0 'lies/data.bin$' "$moecal" fetch file -o lies
truth 'half a file: the other half was asked for' grep -q 'data.bin: Range: bytes=5-$' "$work/stub/requests"
truth 'half a file: if it is still the same' grep -q "data.bin: If-Range: \"$sha256\"$" "$work/stub/requests"
truth 'half a file: the halves fit' [ "$(cat lies/data.bin)" = 0123456789 ]
rm lies/data.bin && printf 01234 >lies/data.bin.part
expect 'the whole instead of the half' 0 'lies/data.bin$' "$moecal" fetch file -o lies
truth 'the whole instead of the half: it is right' [ "$(cat lies/data.bin)" = 0123456789 ]
rm lies/data.bin
printf 012345678X | file '' '200 OK'
expect 'a damaged file' 1 'data.bin: does not have the digest' "$moecal" fetch file -o lies
truth 'a damaged file gets no name' [ ! -e lies/data.bin ]
printf 01234567890 | file '' '200 OK'
expect 'a file that is too long' 1 'data.bin: is longer than the service said' "$moecal" fetch file -o lies
rm -f lies/data.bin.part
printf 01234 | file .1 '200 OK'
printf 56789 | file .2 '206 Partial Content'
expect 'a file in two answers' 0 'lies/data.bin$' "$moecal" fetch file -o lies
rm lies/data.bin && printf 01234 >lies/data.bin.part
printf 56789 | file '' '206 Partial Content'
expect 'a file that another command writes' 2 'is being written by another command' flock lies/data.bin.part "$moecal" fetch file -o lies
lists file data.bin nonsense 10
expect 'a file without a digest' 1 'the service lists no digest of it' "$moecal" fetch file -o lies
lists file data.bin "$sha256" -1
expect 'a file without a size' 1 'the service lists no size of it' "$moecal" fetch file -o lies
say GET /v1/jobs/none/artifacts '{"artifacts": [], "next_cursor": null}'
expect 'a job without files' 1 'left no files' "$moecal" fetch none
wait $busy_one
truth 'a service that stays busy ends with 3' [ $? -eq 3 ]
truth 'it is asked five times' [ "$(grep -c 'trying again in 1 s' "$work/busy.err")" -eq 4 ]

echo "client: $passed passed, $failed failed"
[ "$failed" -eq 0 ]
