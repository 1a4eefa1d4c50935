/*
 * http_negotiate.c - Accept, If-None-Match and Range, read as RFC 9110 says; no server needed
 */
#include "http_parts.h"

#include <string.h>
#include <strings.h>

static const char *skip_blanks(const char *text)
{
	return text + strspn(text, " \t");
}

/* --- Accept ------------------------------------------------------------------------------------ */

/* "0.25" as 250; anything that is not a quality counts as 1. */
static unsigned parse_quality(const char *text)
{
	unsigned value = 0, scale = 1000;
	if (text[0] != '0' || (text[1] != '\0' && text[1] != '.' && !strchr(" \t;,", text[1])))
		return 1000;
	if (text[1] != '.')
		return 0;
	for (text += 2; *text >= '0' && *text <= '9' && scale > 1; text++) {
		scale /= 10;
		value += (unsigned)(*text - '0') * scale;
	}
	return value;
}

/* How exactly a range of Accept (a type, a type with any subtype, anything) names the type: 0 (not) to 3. */
static unsigned specificity(const char *range, size_t length, const char *type)
{
	size_t type_length = strcspn(type, "; \t");
	const char *slash = memchr(type, '/', type_length);
	size_t major = slash ? (size_t)(slash - type) + 1 : 0;
	if (length == type_length && strncasecmp(range, type, length) == 0)
		return 3;
	if (major > 0 && length == major + 1 && range[major] == '*' &&
	    strncasecmp(range, type, major) == 0)
		return 2;
	return length == 3 && memcmp(range, "*/*", 3) == 0 ? 1 : 0;
}

/* The q parameter among ";a=b;q=0.5" up to the next comma. */
static unsigned find_quality(const char *parameters, size_t length)
{
	const char *end = parameters + length;
	const char *at = parameters;
	while (at < end && (at = memchr(at, ';', (size_t)(end - at))) != NULL) {
		at = skip_blanks(at + 1);
		if ((*at == 'q' || *at == 'Q') && at[1] == '=')
			return parse_quality(at + 2);
	}
	return 1000;
}

unsigned http_accept_quality(const char *accept, const char *type)
{
	unsigned best = 0, quality = 0;
	while (*accept != '\0') {
		accept = skip_blanks(accept);
		size_t whole = strcspn(accept, ",");
		size_t name = strcspn(accept, ",; \t");
		unsigned fits = specificity(accept, name, type);
		if (fits > best) {
			best = fits;
			quality = find_quality(accept + name, whole - name);
		}
		accept += whole;
		if (*accept == ',')
			accept++;
	}
	return quality;
}

/* --- If-None-Match ----------------------------------------------------------------------------- */

bool http_tag_matches(const char *header, const char *tag)
{
	size_t length = strlen(tag);
	header = skip_blanks(header);
	if (header[0] == '*' && *skip_blanks(header + 1) == '\0')
		return true;
	while (*header != '\0') {
		if (strncmp(header, "W/", 2) == 0)
			header += 2;
		if (*header != '"')
			return false;
		const char *close = strchr(header + 1, '"');
		if (!close)
			return false;
		close++;
		if ((size_t)(close - header) == length && memcmp(header, tag, length) == 0)
			return true;
		header = close + strspn(close, " \t,");
	}
	return false;
}

/* --- Range ------------------------------------------------------------------------------------- */

/* Digits at *text; too large a number becomes UINT64_MAX. false when there is none. */
static bool take_number(const char **text, uint64_t *ret)
{
	const char *at = *text;
	uint64_t value = 0;
	for (; *at >= '0' && *at <= '9'; at++)
		if (__builtin_mul_overflow(value, (uint64_t)10, &value) ||
		    __builtin_add_overflow(value, (uint64_t)(*at - '0'), &value)) {
			at += strspn(at, "0123456789");
			value = UINT64_MAX;
			break;
		}
	if (at == *text)
		return false;
	*text = at;
	*ret = value;
	return true;
}

enum http_range http_range_parse(const char *value, uint64_t bytes, uint64_t *ret_first,
    uint64_t *ret_last)
{
	uint64_t first, last = UINT64_MAX;
	if (strncasecmp(value, "bytes=", 6) != 0)
		return RANGE_WHOLE;
	value = skip_blanks(value + 6);
	bool has_first = take_number(&value, &first);
	if (*value++ != '-')
		return RANGE_WHOLE;
	bool has_last = take_number(&value, &last);
	if (*skip_blanks(value) != '\0' || (!has_first && !has_last) ||
	    (has_first && has_last && last < first))
		return RANGE_WHOLE;
	if (!has_first) { /* the last so many bytes */
		if (last == 0 || bytes == 0)
			return RANGE_OUTSIDE;
		*ret_first = last < bytes ? bytes - last : 0;
		*ret_last = bytes - 1;
		return RANGE_PART;
	}
	if (first >= bytes)
		return RANGE_OUTSIDE;
	*ret_first = first;
	*ret_last = last < bytes ? last : bytes - 1;
	return RANGE_PART;
}

/* --- text -------------------------------------------------------------------------------------- */

/* Bytes of the sequence at `at`, 0 when it is none (overlong, surrogate, cut off). */
static size_t sequence_length(const unsigned char *at, size_t left)
{
	size_t length = 0;
	if (at[0] < 0x80)
		length = 1;
	else if (at[0] >= 0xc2 && at[0] < 0xe0)
		length = 2;
	else if (at[0] >= 0xe0 && at[0] < 0xf0)
		length = 3;
	else if (at[0] >= 0xf0 && at[0] < 0xf5)
		length = 4;
	if (length == 0 || length > left)
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((at[i] & 0xc0) != 0x80)
			return 0;
	if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
	    (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
		return 0;
	return length;
}

bool http_is_utf8(const char *text, size_t length)
{
	const unsigned char *at = (const unsigned char *)text;
	while (length > 0) {
		size_t step = sequence_length(at, length);
		if (step == 0)
			return false;
		at += step;
		length -= step;
	}
	return true;
}
