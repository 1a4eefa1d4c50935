#!/bin/sh
# floors.sh - the architecture as a table, held against every #include line.
#
# A file includes headers of its own floor and of lower ones; calib and quant do not know each other.
# A foreign library's header is included by its wall files alone.
set -u
cd "$(dirname "$0")/../.." || exit 2
failures=0
fail() {
	echo "floors: $*" >&2
	failures=$((failures + 1))
}

# Public headers of each floor, bottom to top.
base="error alloc arena buf pool env root file sha256 base64 json fault problems"
math="simd dtype tensor linalg ops"
model="safetensors checkpoint weight_source config architecture model tokenizer dataset"
forward="tap forward"
calib="moe_context observer coverage"
quant="scheme match qparams power weight_observer rtn pack"
run="recipe spec dequantize job plan calibrate statistics verdict evaluate parameters versions"

allowed() {
	case $1 in
	base) echo "$base" ;;
	math) echo "$base $math" ;;
	model) echo "$base $math $model" ;;
	forward) echo "$base $math $model $forward" ;;
	calib) echo "$base $math $model $forward $calib" ;;
	quant) echo "$base $math $model $forward $quant" ;;
	run | daemon) echo "$base $math $model $forward $calib $quant $run" ;;
	*) return 1 ;;
	esac
}

for floor in base math model forward calib quant run; do
	list=" $(allowed "$floor") "
	for file in lib/"$floor"/*.[ch]; do
		[ -e "$file" ] || continue
		for header in $(sed -n 's|^#include "moecal/\(.*\)\.h".*|\1|p' "$file"); do
			case $list in *" $header "*) ;; *) fail "$file includes moecal/$header.h, which is not on its floor or below" ;; esac
		done
		# headers of a folder are its own
		for header in $(sed -n 's|^#include "\([^/"]*\)".*|\1|p' "$file"); do
			[ -e "lib/$floor/$header" ] || fail "$file includes $header, which is not beside it"
		done
		if grep -n '^#include "\.\./' "$file" /dev/null; then fail "$file climbs out of its folder"; fi
	done
done
# Every public header stands on exactly one floor, and includes no higher one.
for file in include/moecal/*.h; do
	name=$(basename "$file" .h)
	found=
	for floor in base math model forward calib quant run; do
		eval "own=\" \$$floor \""
		case $own in *" $name "*) found="$found $floor" ;; esac
	done
	case $found in
	"") fail "$file stands on no floor: add it to the table in tests/check/floors.sh" && continue ;;
	" "*" "*) fail "$file stands on several floors:$found" && continue ;;
	esac
	list=" $(allowed ${found# }) "
	for header in $(sed -n 's|^#include "moecal/\(.*\)\.h".*|\1|p' "$file"); do
		case $list in *" $header "*) ;; *) fail "$file (${found# }) includes moecal/$header.h of a higher floor" ;; esac
	done
done

# Walls: foreign header (a pattern), then the files that may include it.
wall() {
	pattern=$1
	shift
	for file in $(grep -lE "^#include <($pattern)" -r lib daemon include 2>/dev/null); do
		case " $* " in *" $file "*) ;; *) fail "$file includes <$pattern>, the wall is: $*" ;; esac
	done
}
wall 'jansson' lib/base/json.c
wall 'openssl/' lib/base/sha256.c lib/base/base64.c
wall 'cblas|lapacke|openblas' lib/math/linalg_openblas.c
wall 'utf8proc' lib/model/tokenizer_normalize.c lib/model/tokenizer_unicode.c
wall 'pcre2' lib/model/tokenizer_split.c lib/model/tokenizer_normalize.c lib/quant/match.c
wall 'sqlite3' lib/run/statistics.c $(echo daemon/store*.[ch]) daemon/schema.c
wall 'yaml' lib/run/recipe_yaml.c lib/run/recipe_yaml_write.c
wall 'microhttpd' $(echo daemon/http*.c)
wall 'curl/' $(echo daemon/cli/*.c)
wall 'systemd/' daemon/log.c daemon/main.c daemon/http_listen.c

# The library has no environment, no exit, no output of its own.
for word in 'getenv' 'exit' 'printf' 'puts' 'setlocale'; do
	grep -nE "(^|[^_a-zA-Z>.])$word\\(" -r lib --include='*.c' | grep -v 'lib/base/error.c' | grep -vE '(^|[^a-z])(v?snprintf|vasprintf)' |
		while read -r line; do echo "floors: the library must not call $word: $line" >&2; done
done >/tmp/floors.$$ 2>&1
if [ -s /tmp/floors.$$ ]; then cat /tmp/floors.$$ >&2; failures=$((failures + 1)); fi
rm -f /tmp/floors.$$

[ "$failures" -eq 0 ] && echo "floors: all includes are on their floor"
[ "$failures" -eq 0 ]
