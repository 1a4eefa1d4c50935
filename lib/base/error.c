/*
 * error.c - recording a failure, and stopping at a bug
 */
#include "moecal/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Length of the valid UTF-8 sequence at s, or 0. */
static size_t sequence_length(const unsigned char *s)
{
	static const unsigned lowest[5] = {0, 0, 0x80, 0x800, 0x10000};
	size_t length = s[0] < 0x80 ? 1 : s[0] < 0xc0 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;

	if (length <= 1)
		return length;
	if (s[0] >= 0xf8)
		return 0;
	unsigned code = s[0] & (0x7fu >> length);
	for (size_t i = 1; i < length; i++) {
		if ((s[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (s[i] & 0x3fu);
	}
	if (code < lowest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
		return 0;
	return length;
}

/* Messages end in JSON and in terminals. File names may hold any byte, and a cut may fall inside a
 * character: what is not UTF-8 becomes '?'. */
static void make_utf8(char *text)
{
	unsigned char *s = (unsigned char *)text;

	while (*s != '\0') {
		size_t length = sequence_length(s);

		if (length == 0) {
			*s = '?';
			length = 1;
		}
		s += length;
	}
}

static void record(struct mc_error *err, enum mc_code code, const char *where)
{
	err->code = code;
	snprintf(err->where, sizeof(err->where), "%s", where ? where : "");
	make_utf8(err->where);
	make_utf8(err->text);
}

void mc_error_init(struct mc_error *err)
{
	err->code = MC_OK;
	err->where[0] = '\0';
	err->text[0] = '\0';
}

bool mc_fail(struct mc_error *err, enum mc_code code, const char *where, const char *fmt, ...)
{
	va_list args;

	mc_assert(code != MC_OK);
	if (err->code != MC_OK)
		return false;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	record(err, code, where);
	return false;
}

static enum mc_code code_of_errno(int errno_value)
{
	switch (errno_value) {
	case ENOSPC:
	case EDQUOT:
		return MC_NO_SPACE;
	case ENOENT:
		return MC_NOT_FOUND;
	case ENOMEM:
		return MC_NO_MEMORY;
	default:
		return MC_IO;
	}
}

bool mc_fail_errno(struct mc_error *err, int errno_value, const char *where, const char *fmt, ...)
{
	va_list args;
	char reason[128];
	/* Not strerror(): that one is translated and not safe in threads. */
	const char *description = strerrordesc_np(errno_value);

	if (err->code != MC_OK)
		return false;
	va_start(args, fmt);
	vsnprintf(err->text, sizeof(err->text), fmt, args);
	va_end(args);
	if (description)
		snprintf(reason, sizeof(reason), ": %s", description);
	else
		snprintf(reason, sizeof(reason), ": error number %d", errno_value);
	/* The reason is the part that must survive: a long sentence is cut to make room. */
	size_t length = strlen(err->text), room = sizeof(err->text) - 1 - strlen(reason);
	memcpy(err->text + (length < room ? length : room), reason, strlen(reason) + 1);
	record(err, code_of_errno(errno_value), where);
	return false;
}

const char *mc_code_name(enum mc_code code)
{
	static const char *const names[] = {
#define X(c, name) [c] = name,
	    MC_CODES(X)
#undef X
	};

	return (size_t)code < sizeof(names) / sizeof(names[0]) ? names[code] : "unknown";
}

_Noreturn void mc_assert_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "moecal: bug: %s:%d: asserted: %s\n", file, line, condition);
	abort();
}
