#!/bin/sh
# docs.sh - the documentation names what is there: links, commands, spec keys, tables
set -u
moecal=$1
cd "$(dirname "$0")/../.." || exit 2
failures=0
fail() {
	echo "docs: $*" >&2
	failures=$((failures + 1))
}
for file in README.md docs/*.md; do
	[ -e "$file" ] || { fail "$file is missing"; continue; }
	for link in $(grep -oE '\]\([^)#]+' "$file" | sed 's/^](//' | grep -vE '^[a-z]+:'); do
		[ -e "$(dirname "$file")/$link" ] || fail "$file links to $link, which is not there"
	done
done
# every command of the program is in the manual page, every spec key in its page
for command in $("$moecal" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p' | grep -v '^moecal$'); do
	grep -q "$command" docs/man/moecal.1 || fail "docs/man/moecal.1 does not know the command $command"
	"$moecal" "$command" --help | grep -q 'usage: moecal' || fail "moecal $command --help says nothing"
done
for key in $(sed -n 's/^    {"\([a-z_]*\)", read_.*/\1/p' lib/run/spec.c); do
	grep -q "\`$key\`" docs/JOB-SPEC.md || fail "docs/JOB-SPEC.md does not know the key $key"
done
# every table and column of calibration.db, every check of a verdict
for column in $(sed -n '/^static const char schema/,/^    "PRAGMA/p' lib/run/statistics.c | grep -oE '[a-z_]+ (INTEGER|REAL|TEXT|BLOB)' | cut -d' ' -f1 | sort -u); do
	grep -q "$column" docs/JOB-FOLDER.md || fail "docs/JOB-FOLDER.md does not know the column $column"
done
for check in $(sed -n 's/.*X(MC_CHECK_[A-Z]*, "\([a-z-]*\)").*/\1/p' include/moecal/verdict.h); do
	grep -q "$check" docs/JOB-FOLDER.md || fail "docs/JOB-FOLDER.md does not know the check $check"
done
[ "$failures" -eq 0 ] && echo "docs: fine"
[ "$failures" -eq 0 ]
