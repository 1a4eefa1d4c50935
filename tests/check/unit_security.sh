#!/bin/sh
# unit_security.sh - the units load without a complaint and give up what the service does not need
#
# usage: unit_security.sh MOECALD   the program that the unit is checked with
set -u
moecald=$(realpath "${1:?usage: unit_security.sh MOECALD}")
cd "$(dirname "$0")/../.." || exit 2
most=1.0 # exposure, of 10, as systemd-analyze counts it
failures=0
fail() {
	echo "unit-security: $*" >&2
	failures=$((failures + 1))
}
for tool in systemd-analyze systemd-sysusers; do
	command -v "$tool" >/dev/null || {
		echo "unit-security: $tool is missing (Debian: systemd)" >&2
		exit 1
	}
done
work=$(mktemp -d /tmp/moecald-unit-XXXXXX)
trap 'rm -rf "$work"' EXIT
[ -x "$moecald" ] || fail "$moecald is not there"

# As `make install` would write it, with the program that was just built.
sed "s|@BINDIR@|$(dirname "$moecald")|g" systemd/moecald.service.in >"$work/moecald.service"
cp systemd/moecald.socket "$work/"
if grep -n '@[A-Z]*@' "$work"/moecald.*; then fail "a placeholder is left"; fi

# Man pages are looked up where they will be installed; here they are only files.
if ! systemd-analyze verify --man=no --recursive-errors=no "$work/moecald.service" "$work/moecald.socket" >"$work/said" 2>&1 ||
	[ -s "$work/said" ]; then
	sed 's/^/    /' "$work/said" >&2
	fail "systemd-analyze verify complains"
fi
for page in $(sed -n 's/^Documentation=//p' "$work"/moecald.service "$work"/moecald.socket | tr ' ' '\n' | sort -u); do
	file=$(echo "$page" | sed 's/^man:\(.*\)(\(.\))$/docs\/man\/\1.\2/')
	[ -e "$file" ] || fail "the units point to $page, there is no $file"
done

systemd-analyze security --offline=true --no-pager --threshold="$(echo "$most" | tr -d .)" "$work/moecald.service" >"$work/score" 2>&1
code=$?
exposure=$(sed -n 's/.*Overall exposure level for moecald.service: \([0-9.]*\).*/\1/p' "$work/score")
if [ "$code" -ne 0 ] || [ -z "$exposure" ]; then
	grep '✗' "$work/score" >&2
	fail "exposure ${exposure:-unknown}, more than $most"
fi

# What the service needs to stay in order, which no score counts.
has() {
	grep -qx "$1" "$work/moecald.service" || fail "moecald.service lacks $1: $2"
}
has 'OOMPolicy=continue' 'a job killed for memory would end the service'
has 'KillMode=mixed' 'jobs would be stopped behind the back of the service'
has 'RestartPreventExitStatus=2' 'a wrong setting would be tried again and again'
has 'SystemCallErrorNumber=EPERM' 'the linear algebra library would be killed for mbind'
has 'LimitCORE=0' 'a core dump holds weights'
if grep -q '^ProcSubset=pid' "$work/moecald.service"; then fail "ProcSubset=pid hides how much memory is free"; fi
seconds=$(sed -n 's/^TimeoutStopSec=\([0-9]*\)s$/\1/p' "$work/moecald.service")
stop=$(sed -n 's/.*X(stop_seconds, SECONDS, "\([0-9]*\)".*/\1/p' daemon/settings.h)
[ "${seconds:-0}" -gt "${stop:-99999}" ] || fail "TimeoutStopSec=$seconds leaves no room for stop_seconds $stop"
user=$(sed -n 's/^User=//p' "$work/moecald.service")
group=$(sed -n 's/^SocketGroup=//p' "$work/moecald.socket")
systemd-sysusers --dry-run "$PWD/systemd/moecald.sysusers" >"$work/users" 2>&1 || {
	cat "$work/users" >&2
	fail "systemd-sysusers does not read systemd/moecald.sysusers"
}
for name in "$user" "$group"; do
	grep -qE "^u +$name " systemd/moecald.sysusers || fail "systemd/moecald.sysusers does not make $name"
done

[ "$failures" -eq 0 ] && echo "unit-security: exposure $exposure"
[ "$failures" -eq 0 ]
