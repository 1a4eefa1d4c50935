#!/bin/sh
# cli.sh - moecal as a user meets it: exit codes, messages, what is left behind
set -u
moecal=$(realpath "$1")
cd "$(dirname "$0")/../.." || exit 2
work=$(mktemp -d /tmp/moecal-cli-XXXXXX)
trap 'rm -rf "$work"' EXIT
model=tests/data/qwen3moe-2m
passed=0
failed=0

# expect NAME CODE TEXT COMMAND...: the command ends with CODE and says TEXT (a basic regular expression)
expect() {
	name=$1 code=$2 text=$3
	shift 3
	"$@" >"$work/stdout" 2>"$work/stderr"
	got=$?
	if [ "$got" -ne "$code" ]; then
		echo "cli: $name: exit $got, not $code" >&2
		sed 's/^/    /' "$work/stderr" | tail -5 >&2
		failed=$((failed + 1))
	elif ! cat "$work/stdout" "$work/stderr" | grep -q -- "$text"; then
		echo "cli: $name: says nothing like '$text':" >&2
		sed 's/^/    /' "$work/stderr" | tail -5 >&2
		failed=$((failed + 1))
	else
		passed=$((passed + 1))
	fi
}
truth() {
	name=$1
	shift
	if "$@"; then passed=$((passed + 1)); else
		echo "cli: $name: not so: $*" >&2
		failed=$((failed + 1))
	fi
}

i=0
while [ $i -lt 40 ]; do
	echo "{\"text\": \"The road went on over the hill, number $i, and then down to the sea where the boats lay.\"}"
	i=$((i + 1))
done >"$work/data.jsonl"
run() { "$moecal" run --model "$model" --dataset "$work/data.jsonl" --recipe W4A16 "$@"; }

# --- help and usage
expect 'no command' 2 'commands:' "$moecal"
expect 'help' 0 'commands:' "$moecal" --help
expect 'help of run' 0 'Examples:' "$moecal" run --help
expect 'unknown command' 2 "did you mean 'verify'" "$moecal" verfy
expect 'unknown option' 2 'did you mean --max_seq_length' "$moecal" run --max-seq-lenth 3 -o "$work/x"
expect 'no output' 2 'where the results go' "$moecal" run --model "$model" --recipe W4A16
expect 'version' 0 'openblas' "$moecal" version
expect 'version as JSON' 0 '"kernel":' "$moecal" version --json

# --- a good run, and what can be asked of it
expect 'run' 0 'verdict: valid' run -o "$work/out"
expect 'coverage' 0 'starved' "$moecal" coverage "$work/out"
expect 'coverage as JSON' 0 '"starved_total"' "$moecal" coverage "$work/out" --json
expect 'quantization' 0 'model.layers.0.mlp.experts.3.up_proj.weight_scale' "$moecal" quantization "$work/out" model.layers.0.mlp.experts.3.up
expect 'quantization, no such' 2 'no parameter' "$moecal" quantization "$work/out" nothing
expect 'verify the job' 0 'verdict: valid' "$moecal" verify "$work/out"
expect 'verify the checkpoint alone' 0 'verdict: valid' "$moecal" verify "$work/out/model"
expect 'verify, an option with =' 0 'dequantized-within-bound' "$moecal" verify "$work/out/model" --original="$model"
expect 'inspect' 0 'qwen3_moe' "$moecal" inspect "$model"
expect 'plan' 0 'memory' "$moecal" plan --model "$model" --recipe FP8_DYNAMIC
expect 'evaluate' 0 'perplexity' "$moecal" evaluate "$model" "$work/data.jsonl" --num-samples 4
echo 'The boats lay.' >"$work/line"
expect 'tokenize' 0 '^[0-9 ]*$' "$moecal" tokenize "$model" "$work/line"
for file in spec.json manifest.json calibration.db quantization.safetensors verdict.json events.jsonl model/config.json model/tokenizer.json; do
	truth "the job folder has $file" [ -s "$work/out/$file" ]
done
truth 'resume/ is gone' [ ! -e "$work/out/resume" ]
run -o "$work/json" --json >"$work/lines" 2>"$work/stderr"
truth 'events are JSON lines' [ "$(grep -c '^{"event":.*}$' "$work/lines")" -eq "$(wc -l <"$work/lines")" ]
truth 'one event a layer' [ "$(grep -c '"event":"layer"' "$work/lines")" -eq 4 ]
printf 'model: %s\ndataset: %s\nrecipe: W8A16\n' "$model" "$work/data.jsonl" >"$work/spec.yaml"
expect 'a YAML spec' 0 'verdict: valid' "$moecal" run "$work/spec.yaml" -o "$work/yaml"
expect 'a spec from standard input' 0 'verdict: valid' sh -c "printf '{\"model\": \"$model\", \"recipe\": \"W4A16\"}' | '$moecal' run - -o '$work/stdin'"
for recipe in FP8 FP8_DYNAMIC FP8_BLOCK; do
	expect "in half precision: $recipe" 0 'verdict: valid' run -o "$work/half-$recipe" --recipe "$recipe" --precision float16
done
printf -- '- QuantizationModifier: {scheme: W8A16, targets: Linear, ignore: [lm_head]}\n' >"$work/list.yaml"
expect 'a file with a list of modifiers' 0 'memory' "$moecal" plan --model "$model" --recipe "$work/list.yaml"
expect 'a list of modifiers' 0 'memory' "$moecal" plan --model "$model" --recipe '[{"QuantizationModifier": {"scheme": "W8A16", "ignore": ["lm_head"]}}]'
expect 'a list of nothing' 2 '/recipe' "$moecal" plan --model "$model" --recipe '[]'

# --- another recipe from a finished job
expect 'derive' 0 'verdict: valid' "$moecal" derive "$work/out" --recipe FP8 -o "$work/derived"
"$moecal" run --model "$model" --dataset "$work/data.jsonl" --recipe FP8 -o "$work/fresh" >/dev/null 2>&1
for file in quantization.safetensors model/model.safetensors model/config.json model/recipe.yaml verdict.json spec.json; do
	truth "derived and fresh: $file" cmp -s "$work/derived/$file" "$work/fresh/$file"
done
truth 'the manifest names the source' grep -q '"derived_from"' "$work/derived/manifest.json"
expect 'derive, planned' 0 'as the source job learned it' "$moecal" derive "$work/out" --recipe NVFP4 --plan
expect 'derive, a spec from standard input' 0 '"valid":true' sh -c "echo '{\"recipe\": \"W8A16\", \"threads\": 1}' | '$moecal' derive '$work/out' - -o '$work/derived-2' --json"
expect 'derive, no folder' 2 'DIR is needed' "$moecal" derive --recipe FP8
expect 'derive, no output' 2 'where the results go' "$moecal" derive "$work/out" --recipe FP8
expect 'derive, no recipe' 2 'recipe: is required' "$moecal" derive "$work/out" -o "$work/x"
expect 'derive, another precision' 2 'precision: is the source' "$moecal" derive "$work/out" --recipe FP8 --precision float32 -o "$work/x"
expect 'derive, another model' 2 'model: is the source' "$moecal" derive "$work/out" --recipe FP8 --model "$work" -o "$work/x"
expect 'derive, a search over inputs' 2 "input observer 'mse'" "$moecal" derive "$work/out" --recipe '{"scheme": "FP8", "ignore": ["lm_head"], "input_observer": "mse"}' -o "$work/x"
expect 'derive, no job' 2 'manifest.json' "$moecal" derive "$work" --recipe FP8 -o "$work/x"
truth 'nothing is left of what was refused' [ ! -e "$work/x" ]

# --- a checkpoint that somebody damaged
spoil() {
	rm -rf "$work/spoilt"
	cp -r "$work/out/model" "$work/spoilt"
}
spoil && truncate -s -100 "$work/spoilt/model.safetensors"
expect 'verify, a truncated file' 4 'NOT VALID' "$moecal" verify "$work/spoilt"
expect 'verify, a truncated file as JSON' 4 '"name": "files-complete"' "$moecal" verify "$work/spoilt" --json
spoil && sed -i 's/"num_hidden_layers": 4/"num_hidden_layers": 5/' "$work/spoilt/config.json"
expect 'verify, a layer less' 4 'model.layers.4.mlp.experts.0.down_proj.weight_packed is missing' "$moecal" verify "$work/spoilt"
spoil && sed -i 's/"quantization_config"/"other"/' "$work/spoilt/config.json"
expect 'verify, nothing says how it is quantized' 4 'no quantization_config, but there is model.layers.0' "$moecal" verify "$work/spoilt"
spoil && rm "$work/spoilt/config.json"
expect 'verify, no config.json' 4 'config.json' "$moecal" verify "$work/spoilt"
expect 'verify, what is not quantized' 2 'this checkpoint is not quantized' "$moecal" verify "$model"
expect 'verify, no such folder' 2 'no-such' "$moecal" verify "$work/no-such"

# --- two jobs
expect 'diff with itself' 0 'within the threshold' "$moecal" diff "$work/out" "$work/json" --threshold 0
expect 'diff, given the same' 0 'were given the same' "$moecal" diff "$work/out" "$work/json"
expect 'diff of two recipes' 0 'recipe.QuantizationModifier.scheme' "$moecal" diff "$work/out" "$work/yaml"
expect 'diff over the threshold' 1 'OVER' "$moecal" diff "$work/out" "$work/yaml" --threshold 0.1
expect 'diff as JSON' 1 '"within": false' "$moecal" diff "$work/out" "$work/yaml" --threshold=0.1 --json
expect 'diff without text' 0 'only in A' "$moecal" diff "$work/out" "$work/stdin"
expect 'diff of one' 2 'two job folders' "$moecal" diff "$work/out"
expect 'diff, no job folder' 2 'is no job folder' "$moecal" diff "$work/out" "$model"
expect 'diff, no number' 2 'threshold needs a number' "$moecal" diff "$work/out" "$work/out" --threshold few

# --- bad specs
expect 'unknown key' 2 "did you mean 'model'" sh -c "echo '{\"modle\": \"x\", \"recipe\": \"W4A16\"}' | '$moecal' run - -o '$work/x'"
expect 'unknown preset' 2 'W4A17' "$moecal" run --model "$model" --recipe W4A17 -o "$work/x"
expect 'missing model' 2 'no-such-folder' "$moecal" run --model "$work/no-such-folder" --recipe W4A16 -o "$work/x"
expect 'missing dataset' 2 'none.jsonl' "$moecal" run --model "$model" --dataset "$work/none.jsonl" --recipe W4A16 -o "$work/x"
expect 'folder not empty' 2 'not empty' run -o "$work/out"

# --- bad data
: >"$work/empty.jsonl"
echo '{"text": ""}' >"$work/no-tokens.jsonl"
echo '{"input_ids": [1, 2, 99999]}' >"$work/outside.jsonl"
echo '{"body": "x"}' >"$work/column.jsonl"
for case in 'empty:empty.jsonl' 'no-tokens:yields a token' 'outside:99999' 'column:text'; do
	expect "dataset ${case%%:*}" 2 "${case#*:}" "$moecal" run --model "$model" --dataset "$work/${case%%:*}.jsonl" --recipe W4A16 -o "$work/x"
done

# --- bad models
copy() {
	rm -rf "$work/$1"
	mkdir "$work/$1"
	cp "$model"/* "$work/$1/"
}
try() { "$moecal" run --model "$work/$1" --dataset "$work/data.jsonl" --recipe W4A16 -o "$work/x"; }
copy short && truncate -s -100 "$work/short/model.safetensors"
expect 'truncated shard' 1 'model.safetensors' try short
copy absent && printf '{"metadata": {}, "weight_map": {"model.norm.weight": "model.safetensors", "model.extra.weight": "model.safetensors"}}' >"$work/absent/model.safetensors.index.json"
expect 'index names an absent tensor' 1 'model.extra.weight' try absent
copy nan
header=$(od -An -t u8 -N 8 "$work/nan/model.safetensors" | tr -d ' ')
begin=$(head -c $((header + 8)) "$work/nan/model.safetensors" | tail -c "$header" | grep -o '"model.layers.2.mlp.experts.3.up_proj.weight":{[^}]*}' | sed 's/.*"data_offsets":\[\([0-9]*\),.*/\1/')
printf '\300\177' | dd of="$work/nan/model.safetensors" bs=1 seek=$((header + 8 + begin + 20)) conv=notrunc 2>/dev/null
expect 'NaN weights' 1 'model.layers.2.mlp.experts.3.up_proj.weight' try nan
truth 'after NaN nothing has a final name' [ ! -e "$work/x/model" ] && rm -rf "$work/x"
copy quantized && sed -i 's/^{/{"quantization_config": {"quant_method": "fp8"},/' "$work/quantized/config.json"
expect 'fp8 without blocks' 2 'fp8 without weight_block_size' try quantized
copy gptq && sed -i 's/^{/{"quantization_config": {"quant_method": "gptq"},/' "$work/gptq/config.json"
expect 'quantized by others' 2 'quant_method gptq' try gptq
expect 'quantized by us' 0 'verdict: valid' "$moecal" run --model "$work/out/model" --recipe FP8_DYNAMIC -o "$work/again"
expect 'its manifest says so' 0 'compressed-tensors pack-quantized' cat "$work/again/manifest.json"
expect 'verify against a quantized original' 0 'verdict: valid' "$moecal" verify "$work/again/model" --original "$work/out/model"
expect 'inspect a quantized checkpoint' 0 'compressed-tensors pack-quantized' "$moecal" inspect "$work/out/model"
expect 'plan for a quantized checkpoint' 0 'dequantized first' "$moecal" plan --model "$work/out/model" --recipe W8A16
expect 'evaluate a quantized checkpoint' 0 'perplexity' "$moecal" evaluate "$work/out/model" "$work/data.jsonl" --num-samples 4
copy unknown && sed -i 's/qwen3_moe/qwen9_moe/; s/Qwen3Moe/Qwen9Moe/' "$work/unknown/config.json"
expect 'unknown architecture' 2 'qwen9_moe' try unknown
copy tokens && sed -i 's/"type": *"ByteLevel"/"type": "BertPreTokenizer"/' "$work/tokens/tokenizer.json"
expect 'unknown tokenizer component' 2 'BertPreTokenizer' try tokens
copy shape && sed -i 's/"num_experts": 8/"num_experts": 9/' "$work/shape/config.json"
expect 'a missing expert' 1 'expert' try shape
truth 'a refused job leaves nothing' [ ! -e "$work/x" ]

# --- out of memory, out of disk
expect 'memory budget' 1 'are allowed' run --memory-bytes 3000000 -o "$work/x"
if [ "$(id -u)" -eq 0 ] && mkdir "$work/small" && mount -t tmpfs -o size=1m tmpfs "$work/small" 2>/dev/null; then
	expect 'disk' 1 'free' run -o "$work/small/out"
	umount "$work/small"
fi

# --- stopped and killed: the same command goes on and gives the same bits
i=0
while [ $i -lt 60 ]; do cat "$work/data.jsonl"; i=$((i + 1)); done >"$work/long.jsonl"
long() { "$moecal" run --model "$model" --dataset "$work/long.jsonl" --recipe FP8 --num-calibration-samples 2400 --threads 1 "$@"; }
long -o "$work/whole" >/dev/null 2>&1
truth 'a long run is valid' grep -q '"valid": true' "$work/whole/verdict.json"
"$moecal" run --model "$model" --dataset "$work/long.jsonl" --recipe FP8 --num-calibration-samples 2400 --threads 1 -o "$work/stopped" >/dev/null 2>"$work/stderr" &
child=$!
tries=0
until grep -q 'layer 1 of' "$work/stderr" || [ $tries -gt 600 ]; do
	sleep 0.05
	tries=$((tries + 1))
done
kill -TERM $child
wait $child
truth 'SIGTERM ends with 75' [ $? -eq 75 ]
truth 'what was done is kept' [ -e "$work/stopped/resume" ]
expect 'it goes on' 0 'verdict: valid' long -o "$work/stopped"
truth 'the same bits' cmp -s "$work/whole/model/model.safetensors" "$work/stopped/model/model.safetensors"
"$moecal" run --model "$model" --dataset "$work/long.jsonl" --recipe FP8 --num-calibration-samples 2400 --threads 1 -o "$work/killed" >/dev/null 2>"$work/stderr" &
child=$!
tries=0
until grep -q 'layer 2 of' "$work/stderr" || [ $tries -gt 600 ]; do
	sleep 0.05
	tries=$((tries + 1))
done
kill -KILL $child
wait $child 2>/dev/null
expect 'after kill -9 it goes on' 0 'verdict: valid' long -o "$work/killed"
truth 'the same bits after kill -9' cmp -s "$work/whole/model/model.safetensors" "$work/killed/model/model.safetensors"

echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ]
