#!/bin/sh
# perplexity.sh MOECAL SHARED - the perplexity of the original qwen3moe-24m on four held-out sets against
# the reference's figures: within 1e-4 relative
set -u
moecal=$1
shared=$2
expected=$shared/fixtures/quantization/perplexity.json
passed=0
failed=0
for domain in prose python c docs; do
	want=$(sed -n '/"corrected"/,$p' "$expected" | sed -n '/"original"/,/}/p' | sed -n "s/.*\"$domain\": \([0-9.]*\).*/\1/p" | head -n 1)
	have=$("$moecal" evaluate "$shared/models/qwen3moe-24m" "$shared/datasets/$domain.evaluation.npy" --num-samples 60 | sed -n 's/^perplexity *//p')
	if [ -n "$want" ] && [ -n "$have" ] && awk -v a="$have" -v b="$want" 'BEGIN { d = (a - b) / b; exit !(d < 1e-4 && d > -1e-4) }'; then
		echo "$domain: $have, reference $want: pass"
		passed=$((passed + 1))
	else
		echo "$domain: '$have', reference '$want': FAIL"
		failed=$((failed + 1))
	fi
done
echo "$passed passed, $failed failed"
[ "$failed" -eq 0 ] && [ "$passed" -eq 4 ]
