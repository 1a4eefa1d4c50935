#!/bin/sh
# demo.sh - the main job end to end: a small real model, the project's documentation as text, W4A16
set -eu
moecal=$1
cd "$(dirname "$0")/.."
out=build/demo
rm -rf "$out"
mkdir -p build

# one sample a paragraph of the documentation, as JSON lines
text=build/demo.jsonl
for file in README.md docs/*.md; do [ -e "$file" ] && cat "$file" && echo; done | awk '
	function flush() {
		if (length(sample) > 40) printf "{\"text\": \"%s\"}\n", sample
		sample = ""
	}
	/^[ \t]*$/ { flush(); next }
	{
		gsub(/\\/, "\\\\"); gsub(/"/, "\\\""); gsub(/\t/, " ")
		sample = sample (sample == "" ? "" : "\\n") $0
	}
	END { flush() }' > "$text"
echo "text: $(wc -l < "$text") paragraphs of the documentation"

"$moecal" run --model tests/data/qwen3moe-2m --dataset "$text" --recipe W4A16 -o "$out"

echo
echo "three parameters of $out/quantization.safetensors:"
for module in self_attn.q_proj mlp.experts.0.gate_proj mlp.experts.7.down_proj; do
	"$moecal" quantization "$out" "model.layers.3.$module" --limit 1
done
echo
echo "the checkpoint lies in $out/model"
