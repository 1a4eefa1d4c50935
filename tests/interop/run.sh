#!/bin/sh
# run.sh MOECAL LOGITS - checkpoints that moecal wrote, loaded by transformers and compressed-tensors
#
# Quantizes tests/data/qwen3moe-2m by each recipe below, lets LOGITS (tests/doors/logits.c) make this
# program's own dense weights and logits of the result, and compare.py hold them against those of
# transformers. The first time the packages of requirements.txt are installed into build/venv.
# PYTHON=NAME: another interpreter than python3.
set -eu
usage="usage: run.sh MOECAL LOGITS"
moecal=$(realpath "${1:?$usage}") logits=$(realpath "${2:?$usage}")
cd "$(dirname "$0")/../.."
model=tests/data/qwen3moe-2m here=tests/interop venv=build/venv work=build/interop
die() {
	echo "interop: $*" >&2
	exit 1
}

if ! cmp -s "$here/requirements.txt" "$venv/requirements.txt"; then
	command -v "${PYTHON:-python3}" >/dev/null || die "${PYTHON:-python3} is missing"
	echo "installing the packages of $here/requirements.txt into $venv"
	rm -rf "$venv"
	"${PYTHON:-python3}" -m venv "$venv" &&
		"$venv/bin/pip" install --quiet --disable-pip-version-check -r "$here/requirements.txt" ||
		die "the packages of $here/requirements.txt cannot be installed"
	cp "$here/requirements.txt" "$venv/requirements.txt"
fi

rm -rf "$work"
mkdir -p "$work"
# The preset's groups are as wide as this model, so that groups proper need a recipe of their own.
cat >"$work/groups.yaml" <<'RECIPE'
quant_stage:
  quant_modifiers:
    QuantizationModifier:
      ignore: [lm_head, 're:.*mlp.gate$']
      config_groups:
        group_0:
          targets: [Linear]
          weights: {num_bits: 4, type: int, symmetric: true, strategy: group, group_size: 32}
RECIPE
"$moecal" tokenize "$model" --json "$here/texts.jsonl" >"$work/ids.txt" || die "moecal tokenize failed"
sed 's/.*/{"input_ids": &}/' "$work/ids.txt" >"$work/ids.jsonl"

quantize() {
	"$moecal" run --model "$model" --dataset "$work/ids.jsonl" --recipe "$2" -o "$work/$1" >"$work/$1.log" 2>&1 || {
		cat "$work/$1.log" >&2
		die "moecal run failed for $1"
	}
	"$logits" "$work/$1/model" "$work/ids.jsonl" "$work/$1.ours" || die "no logits of $1"
}
quantize W4A16 W4A16
quantize W4A16-g32 "$work/groups.yaml"
quantize FP8_DYNAMIC FP8_DYNAMIC

# Its bars of progress go to a file; so do errors, which are shown when it fails.
status=0
HF_HUB_OFFLINE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false \
	"$venv/bin/python" -W ignore "$here/compare.py" "$model" "$work" "$here/texts.jsonl" \
	W4A16 W4A16-g32 FP8_DYNAMIC 2>"$work/compare.log" || status=$?
[ "$status" -eq 0 ] || tr '\r' '\n' <"$work/compare.log" | grep -v '%|' >&2 || true
exit "$status"
