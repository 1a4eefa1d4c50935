#!/bin/sh
# style.sh - habits that a machine can check: length of files and functions, banned calls, white space
set -u
cd "$(dirname "$0")/../.." || exit 2
failures=0
for file in $(find lib daemon include tests -name '*.[ch]' | sort); do
	lines=$(wc -l < "$file")
	if [ "$lines" -gt 700 ]; then
		echo "style: $file has $lines lines, more than 700: it wants a wall" >&2
		failures=$((failures + 1))
	fi
	if grep -nE '[[:space:]]+$' "$file" /dev/null | head -3 | grep .; then
		echo "style: white space at the end of a line in $file" >&2
		failures=$((failures + 1))
	fi
	if grep -nE '(^|[^_[:alnum:]>.])(strcat|sprintf|vsprintf|strtok|gets|gmtime|localtime|asctime|ctime|atoi|atof|exec[lv]p?)\(' "$file" /dev/null; then
		echo "style: a banned function in $file" >&2
		failures=$((failures + 1))
	fi
	case $file in lib/* | daemon/*)
		if grep -nE '(^|[^_[:alnum:]>.])fork\(' "$file" /dev/null; then
			echo "style: fork in $file: use posix_spawn" >&2
			failures=$((failures + 1))
		fi ;;
	esac
	case $(head -c 2 "$file") in "/*") ;; *)
		echo "style: $file does not open by saying what it is for" >&2
		failures=$((failures + 1)) ;;
	esac
done
# functions of the product: at most 90 lines from the opening to the closing brace in column one
for file in $(find lib daemon -name '*.c' | sort); do
	awk -v file="$file" '/^\{/ { start = NR } /^\}/ { if (start && NR - start > 90) { print "style: " file ":" start ": a function of " NR - start " lines"; bad = 1 } start = 0 } END { exit bad }' "$file" >&2 || failures=$((failures + 1))
done
[ "$failures" -eq 0 ] && echo "style: fine"
[ "$failures" -eq 0 ]
