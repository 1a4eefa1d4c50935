#!/bin/sh
# run.sh MOECAL DOORS [SHARED] - checkpoints that moecal wrote, read by compressed-tensors and transformers
#
# Quantizes tests/data/qwen3moe-2m by each recipe of cases.txt, lets DOORS/dense and DOORS/logits (tests/doors)
# make this program's own weights and logits of the result, and compare.py hold them against those of the two
# packages. Checkpoints of the reference, SHARED/fixtures/quantization/verify/good-*, go the other way: made
# there, read here. The first time the packages of requirements.txt are installed into build/venv.
# PYTHON=NAME: another interpreter than python3. CASES=NAME,...: these alone. ALL=1: transformers is tried on what
# it is known to load wrongly too, which then fails and says how.
set -eu
usage="usage: run.sh MOECAL DOORS [SHARED]"
moecal=$(realpath "${1:?$usage}") doors=$(realpath "${2:?$usage}") shared=$(realpath -m "${3:-../shared}")
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
"$moecal" tokenize "$model" --json "$here/texts.jsonl" >"$work/ids.txt" || die "moecal tokenize failed"
sed 's/.*/{"input_ids": &}/' "$work/ids.txt" >"$work/ids.jsonl"

read_back() {
	"$doors/dense" "$2" "$work/$1.dense.safetensors" || die "no weights of $1"
	[ "$3" != right ] || "$doors/logits" "$2" "$work/ids.jsonl" "$work/$1.logits.safetensors" || die "no logits of $1"
}
grep -v '^#' "$here/cases.txt" | while read -r name recipe transformers; do
	case ",${CASES:-$name}," in *",$name,"*) ;; *) continue ;; esac
	[ -z "${ALL:-}" ] || transformers=right
	case $recipe in *.yaml) recipe=$here/recipes/$recipe ;; esac
	"$moecal" run --model "$model" --dataset "$work/ids.jsonl" --recipe "$recipe" -o "$work/$name" \
		>"$work/$name.log" 2>&1 || {
		cat "$work/$name.log" >&2
		die "moecal run failed for $name"
	}
	read_back "$name" "$work/$name/model" "$transformers"
	printf '%s\t%s\t%s\n' "$name" "$work/$name/model" "$transformers" >>"$work/cases.tsv"
done
for folder in "$shared"/fixtures/quantization/verify/good-*; do
	[ -z "${CASES:-}" ] || break
	[ -d "$folder" ] || { echo "the reference's checkpoints are not in $folder: skipped" && break; }
	name=$(basename "$folder")
	read_back "$name" "$folder" "made by the reference"
	printf '%s\t%s\t%s\n' "$name" "$folder" "made by the reference" >>"$work/cases.tsv"
done

# Its bars of progress go to a file; so do errors, which are shown when it fails.
status=0
HF_HUB_OFFLINE=1 TQDM_DISABLE=1 TRANSFORMERS_VERBOSITY=error TOKENIZERS_PARALLELISM=false \
	"$venv/bin/python" -W ignore "$here/compare.py" "$model" "$work" "$here/texts.jsonl" 2>"$work/compare.log" ||
	status=$?
[ "$status" -eq 0 ] || tr '\r' '\n' <"$work/compare.log" | grep -v '%|' >&2 || true
exit "$status"
