#!/bin/sh
# docs.sh - the documentation names what is there: links, commands, spec keys, tables
set -u
moecal=$1
moecald=${2:-$(dirname "$(realpath "$1")")/moecald}
cd "$(dirname "$0")/../.." || exit 2
failures=0
fail() {
	echo "docs: $*" >&2
	failures=$((failures + 1))
}
for file in README.md docs/*.md docs/schemes/*.md; do
	[ -e "$file" ] || { fail "$file is missing"; continue; }
	for link in $(grep -oE '\]\([^)#]+' "$file" | sed 's/^](//' | grep -vE '^[a-z]+:'); do
		[ -e "$(dirname "$file")/$link" ] || fail "$file links to $link, which is not there"
	done
done
# every recipe of docs/schemes can be planned
recipe=$(mktemp) && printf '{"input_ids": [1, 2, 3]}\n' >"$recipe.jsonl"
for file in docs/schemes/*.md; do
	number=1
	while awk -v want="$number" '/^```yaml/ { n++; p = n == want; next } /^```/ { p = 0 } p' "$file" >"$recipe" && [ -s "$recipe" ]; do
		"$moecal" plan --model tests/data/qwen3moe-2m --dataset "$recipe.jsonl" --recipe "$(cat "$recipe")" >/dev/null ||
			fail "$file: recipe $number is refused"
		number=$((number + 1))
	done
done
rm -f "$recipe" "$recipe.jsonl"
# every command of the program is in the manual page, every spec key in its page
for command in $("$moecal" --help | sed -n 's/^  \([a-z]*\)  .*/\1/p' | grep -v '^moecal$'); do
	grep -q "$command" docs/man/moecal.1 || fail "docs/man/moecal.1 does not know the command $command"
	"$moecal" "$command" --help | grep -q 'usage: moecal' || fail "moecal $command --help says nothing"
done
for key in $(sed -n 's/^    {"\([a-z_]*\)", read_.*/\1/p' lib/run/spec.c); do
	grep -q "\`$key\`" docs/JOB-SPEC.md || fail "docs/JOB-SPEC.md does not know the key $key"
done
# every word of a recipe: presets, fields, args, observers and their arguments, formats, modifiers
words() { awk -v from="$2" '$0 ~ from { on = 1 } on { print } on && /};/ { exit }' "$1" | grep -oE '"[^"]+"' | tr -d '"'; }
known=$(sed -n '/^} presets\[\] = {/,/^};/s/^    {"\([A-Z0-9_]*\)".*/\1/p' lib/quant/scheme.c
	words lib/quant/scheme_config.c '^static const char [*]const keys'
	words lib/quant/scheme_group.c '^static const char [*]const keys'
	words lib/quant/scheme_group.c 'static const char [*]const legacy'
	words lib/quant/scheme_args.c '^static const char [*]const keys'
	words lib/quant/scheme_args.c '^static const char [*]const strategies'
	words lib/quant/scheme_observer.c '^static const char [*]const arguments'
	sed -n '/^} observers\[\] = {/,/^};/s/^    {"\([a-z0-9_]*\)".*/\1/p' lib/quant/scheme_observer.c
	words lib/quant/scheme.c '^static const char [*]const formats'
	words lib/run/recipe.c '^static const char [*]const known_modifiers'
	words lib/run/recipe.c '^static const char [*]const silent_keys')
[ "$(echo "$known" | wc -l)" -ge 110 ] || fail "the words of a recipe were not all found in lib/"
for word in $known; do
	grep -q "\`$word\`" docs/RECIPES.md || fail "docs/RECIPES.md does not know the word $word"
done
# every table and column of calibration.db, every check of a verdict
for column in $(sed -n '/^static const char schema/,/^    "PRAGMA/p' lib/run/statistics.c | grep -oE '[a-z_]+ (INTEGER|REAL|TEXT|BLOB)' | cut -d' ' -f1 | sort -u); do
	grep -q "$column" docs/JOB-FOLDER.md || fail "docs/JOB-FOLDER.md does not know the column $column"
done
for check in $(sed -n 's/.*X(MC_CHECK_[A-Z]*, "\([a-z-]*\)").*/\1/p' include/moecal/verdict.h); do
	grep -q "$check" docs/JOB-FOLDER.md || fail "docs/JOB-FOLDER.md does not know the check $check"
done
# every setting of the daemon, with its default, where people look for it
sed -n '/^#define SETTINGS/,/^$/p' daemon/settings.h | tr -d '\\\n\t' | sed 's/X(/\n&/g' |
	sed -n 's/^X(\([a-z_]*\), *[A-Z]*, *\(NULL\|"[^"]*"\), *[^,]*, *[^,]*, *\(true\|false\),.*/\1 \2 \3/p' | tr -d '"' >"/tmp/docs.$$"
[ -s "/tmp/docs.$$" ] || fail "no setting was found in daemon/settings.h"
while read -r setting default reload; do
	line=$(grep -E "^#$setting = " systemd/moecald.conf | head -1)
	[ -n "$line" ] || fail "systemd/moecald.conf has no line '#$setting = ...'"
	[ "$default" = NULL ] || [ "$line" = "#$setting = $default" ] || fail "systemd/moecald.conf: '$line', the default is $default"
	# a row of the table: | `name` | default | reload |; and .B name in the manual page
	row=$(grep -E "^\| \`$setting\` \|" docs/OPERATIONS.md)
	[ -n "$row" ] || fail "docs/OPERATIONS.md does not know the setting $setting"
	[ "$default" = NULL ] || case $row in *"| $default |"*) ;; *) fail "docs/OPERATIONS.md: the default of $setting is $default" ;; esac
	case $reload,$row in true,*"| yes |"* | false,*"| no |"*) ;; *) fail "docs/OPERATIONS.md: reloading of $setting is not '$reload'" ;; esac
	grep -qE "^\.BR? $setting( |$)" docs/man/moecald.conf.5 || fail "docs/man/moecald.conf.5 does not know the setting $setting"
done <"/tmp/docs.$$"
# ... and no setting that there is not
for setting in $(sed -n 's/^#\([a-z_]*\) = .*/\1/p' systemd/moecald.conf | sort -u); do
	grep -q "^$setting " "/tmp/docs.$$" || fail "systemd/moecald.conf sets $setting, which is no setting"
done
sed 's/^#\([a-z_]* = \)/\1/' systemd/moecald.conf >"/tmp/docs.$$"
for config in systemd/moecald.conf "/tmp/docs.$$"; do
	"$moecald" --check-config --config "$config" >/dev/null || fail "moecald does not accept $config (as it is, or with every line in force)"
done
rm -f "/tmp/docs.$$"
# manual pages render without a warning
for page in docs/man/*.[1-8]; do
	groff -man -Tutf8 -ww -z "$page" >"/tmp/docs.$$" 2>&1 || fail "$page does not render"
	[ ! -s "/tmp/docs.$$" ] || { cat "/tmp/docs.$$" >&2; fail "$page renders with warnings"; }
done
rm -f "/tmp/docs.$$"
[ "$failures" -eq 0 ] && echo "docs: fine"
[ "$failures" -eq 0 ]
