#!/bin/sh
# scheme_table.sh MOECAL SHARED [NAME...] - what each scheme costs: the table of docs/schemes
#
# Quantizes SHARED/models/qwen3moe-24m by each scheme below (or by those named), rounding to nearest, calibrated on
# 128 sequences of 512 tokens where the scheme needs text, and measures the perplexity on the first 60 sequences of
# four held-out sets. `moecal evaluate` restores weights and computes in float32; inputs of linears are not
# quantized, so schemes of the same weights have one row. Prints a row of Markdown a scheme:
#
#   scheme, bits a weight of the quantized linears (codes, scales and zero points as stored), size of the
#   weights' file in kB of tests/data/qwen3moe-2m and of qwen3moe-24m, perplexity on prose, python, c, docs
#
# and beneath it the reference's figures (fixtures/quantization/perplexity.json) where it has some.
set -eu
usage="usage: scheme_table.sh MOECAL SHARED [NAME...]"
moecal=$(realpath "${1:?$usage}") shared=$(realpath "${2:?$usage}")
shift 2
cd "$(dirname "$0")/../.."
recipes=tests/interop/recipes small=tests/data/qwen3moe-2m large=$shared/models/qwen3moe-24m data=$shared/datasets
work=$(mktemp -d "${TMPDIR:-/tmp}/scheme-table.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM

# NAME RECIPE REFERENCE: the reference's name of it, or -
schemes() {
	cat <<'TABLE'
W2A16 W2A16 -
W3A16 W3A16 RTN-W3A16/all
W4A16 W4A16 RTN-W4A16/all
W5A16 W5A16 -
W6A16 W6A16 -
W7A16 W7A16 -
W8A16 W8A16 -
W4A16-g32 w4a16-g32.yaml -
W4A16-channel w4a16-channel.yaml -
W4A16_ASYM W4A16_ASYM RTN-W4A16_ASYM/all
W3A16-g32-asym w3a16-g32-asym.yaml -
W3A16-mse observer:W3A16:mse -
W3A16-imatrix observer:W3A16:imatrix_mse -
W4A16-mse observer:W4A16:mse -
W4A16-imatrix observer:W4A16:imatrix_mse -
W4A16_ASYM-mse observer:W4A16_ASYM:mse -
W4A8 W4A8 -
W8A8 W8A8 RTN-W8A8/all
FP8 FP8 RTN-FP8/all
FP8_DYNAMIC FP8_DYNAMIC -
FP8_BLOCK FP8_BLOCK -
FP8_DYNAMIC-mse observer:FP8_DYNAMIC:mse -
NVFP4 NVFP4 RTN-NVFP4/all
NVFP4-mse observer:NVFP4:mse -
NVFP4-expanded observer:NVFP4:nvfp4_expanded_mse -
MXFP4 MXFP4 -
MXFP4-mse observer:MXFP4:mse -
MXFP8 MXFP8 -
mixed-experts-w4a16 mixed-experts-w4a16.yaml -
mixed-nvfp4-fp8 mixed-nvfp4-fp8.yaml -
mixed-down-w8a16 mixed-down-w8a16.yaml -
W4A16-kv-fp8 w4a16-kv-fp8.yaml -
TABLE
}

# The recipe as moecal takes it.
recipe_of() {
	case $1 in
	*.yaml) echo "$recipes/$1" ;;
	observer:*)
		echo "$1" | sed 's/observer:\(.*\):\(.*\)/QuantizationModifier: {targets: Linear, ignore: [lm_head], scheme: \1, weight_observer: \2}/' ;;
	*) echo "$1" ;;
	esac
}

# Weights alone do not depend on the text, unless they are weighed with it.
needs_text() {
	case $1 in *imatrix | FP8 | NVFP4* | *nvfp4-fp8 | *kv-fp8) true ;; *) false ;; esac
}

quantize() { # NAME RECIPE MODEL TEXT OUT
	name_=$1 model_=$3 text_=$4 out_=$5
	set -- --recipe "$(recipe_of "$2")"
	if needs_text "$name_"; then
		set -- "$@" --dataset "$text_" --num-calibration-samples 128 --max-seq-length 512
	fi
	"$moecal" run --model "$model_" -o "$out_" "$@" >"$work/log" 2>&1 || {
		cat "$work/log" >&2
		return 1
	}
}

# Bits a weight, and kB of all files of weights. ORIGINAL CHECKPOINT
cost() {
	python3 - "$1" "$2" <<'PYTHON'
import glob, json, math, os, struct, sys


def headers(folder):
    tensors = {}
    for path in glob.glob(folder + "/*.safetensors"):
        with open(path, "rb") as file:
            tensors.update(json.loads(file.read(struct.unpack("<Q", file.read(8))[0])))
    tensors.pop("__metadata__", None)
    return tensors


original, made = headers(sys.argv[1]), headers(sys.argv[2])
quantized = {name.rpartition(".")[0] for name in made if name.endswith(".weight_scale")}
counted = ("weight", "weight_packed", "weight_scale", "weight_zero_point", "weight_global_scale")
size = sum(t["data_offsets"][1] - t["data_offsets"][0] for name, t in made.items()
           if name.rpartition(".")[0] in quantized and name.rpartition(".")[2] in counted)
weights = sum(math.prod(original[module + ".weight"]["shape"]) for module in quantized)
kilobytes = sum(map(os.path.getsize, glob.glob(sys.argv[2] + "/*.safetensors"))) / 1000
print(f"{8 * size / weights:.2f}" if weights else "16", f"{kilobytes:.0f}")
PYTHON
}

perplexities() {
	for domain in prose python c docs; do
		"$moecal" evaluate "$1" "$data/$domain.evaluation.npy" --num-samples 60 | sed -n 's/^perplexity *//p'
	done | awk '{ printf " %.3f |", $1 }'
}

reference() {
	python3 - "$1" "$shared/fixtures/quantization/perplexity.json" <<'PYTHON'
import json, sys

with open(sys.argv[2], encoding="utf-8") as file:
    row = json.load(file)["corrected"][sys.argv[1]]
print("", " | ".join(f"{row[domain]:.3f}" for domain in ("prose", "python", "c", "docs")), "|")
PYTHON
}

echo "| scheme | bits a weight | 2m, kB | 24m, kB | prose | python | c | docs |"
echo "|---|---:|---:|---:|---:|---:|---:|---:|"
row() {
	set -- "$1" "$2" "$3" $4
	echo "| $1 | $4 | $5 | $6 |$(perplexities "$2")"
	[ "$3" = - ] || echo "| $1, by llm-compressor | | | |$(reference "$3")"
}
[ $# -gt 0 ] || row original "$large" original "16 $(cost "$small" "$small" | cut -d ' ' -f 2) $(cost "$large" "$large" | cut -d ' ' -f 2)"
schemes | while read -r name recipe theirs; do
	case " ${*:-$name} " in *" $name "*) ;; *) continue ;; esac
	for size in small large; do
		[ $size = small ] && model=$small text=$data/prose.calibration.jsonl || model=$large text=$data/prose.calibration.npy
		rm -rf "${work:?}/$size"
		quantize "$name" "$recipe" "$model" "$text" "$work/$size" || exit 1
	done
	row "$name" "$work/large/model" "$theirs" "$(cost "$large" "$work/large/model" | cut -d ' ' -f 1) $(cost "$small" "$work/small/model" |
		cut -d ' ' -f 2) $(cost "$large" "$work/large/model" | cut -d ' ' -f 2)"
done
