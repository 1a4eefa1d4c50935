/*
 * json_screen.c - what is checked of JSON text of strangers before a tree is made of it
 */
#include "moecal/json.h"

#include <string.h>

/* "\u0000" at text[at], the backslash; text[length] need not be there. */
static bool is_escaped_nul(const char *text, size_t length, size_t at)
{
	return length - at >= 6 && memcmp(text + at + 1, "u0000", 5) == 0;
}

bool mc_json_screen(
    const char *text, size_t length, unsigned deepest, const char *where, struct mc_error *err)
{
	unsigned depth = 0;
	bool quoted = false;

	for (size_t i = 0; i < length; i++) {
		char c = text[i];
		if (quoted && c == '\\') {
			if (is_escaped_nul(text, length, i))
				return mc_fail(err, MC_INVALID, where,
				    "a string holds \\u0000, which no text here may");
			i++; /* what is escaped ends no string */
		} else if (c == '"') {
			quoted = !quoted;
		} else if (!quoted && (c == '{' || c == '[')) {
			if (++depth > deepest)
				return mc_fail(err, MC_INVALID, where,
				    "is nested deeper than %u", deepest);
		} else if (!quoted && (c == '}' || c == ']') && depth > 0) {
			depth--;
		}
	}
	return true;
}
