/*
 * tokenizer_unicode.c - UTF-8 and the few character properties that a tokenizer asks for
 */
#include <utf8proc.h>

#include "tokenizer_parts.h"

size_t mc_utf8_length(unsigned char first)
{
	return first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
}

uint32_t mc_utf8_decode(const char *p, size_t *ret_length)
{
	const unsigned char *u = (const unsigned char *)p;
	size_t length = mc_utf8_length(u[0]);

	*ret_length = length;
	if (length == 1)
		return u[0];
	if (length == 2)
		return (uint32_t)(u[0] & 0x1F) << 6 | (u[1] & 0x3F);
	if (length == 3)
		return (uint32_t)(u[0] & 0x0F) << 12 | (uint32_t)(u[1] & 0x3F) << 6 | (u[2] & 0x3F);
	return (uint32_t)(u[0] & 0x07) << 18 | (uint32_t)(u[1] & 0x3F) << 12 |
	       (uint32_t)(u[2] & 0x3F) << 6 | (u[3] & 0x3F);
}

size_t mc_utf8_encode(uint32_t code, char into[4])
{
	if (code < 0x80) {
		into[0] = (char)code;
		return 1;
	}
	if (code < 0x800) {
		into[0] = (char)(0xC0 | code >> 6);
		into[1] = (char)(0x80 | (code & 0x3F));
		return 2;
	}
	if (code < 0x10000) {
		into[0] = (char)(0xE0 | code >> 12);
		into[1] = (char)(0x80 | (code >> 6 & 0x3F));
		into[2] = (char)(0x80 | (code & 0x3F));
		return 3;
	}
	into[0] = (char)(0xF0 | code >> 18);
	into[1] = (char)(0x80 | (code >> 12 & 0x3F));
	into[2] = (char)(0x80 | (code >> 6 & 0x3F));
	into[3] = (char)(0x80 | (code & 0x3F));
	return 4;
}

size_t mc_utf8_before(const char *text, size_t at)
{
	do
		at--;
	while (at > 0 && ((unsigned char)text[at] & 0xC0) == 0x80);
	return at;
}

/*
 * Bytes of the well-formed character at p, or 0 and the length of its longest valid beginning (at
 * least 1), which one U+FFFD stands for.
 */
static size_t check_character(const unsigned char *p, size_t left, size_t *ret_bad)
{
	unsigned char low = 0x80, high = 0xBF; /* of the second byte */
	size_t need;

	if (p[0] < 0x80)
		return 1;
	*ret_bad = 1;
	if (p[0] < 0xC2 || p[0] > 0xF4)
		return 0;
	need = mc_utf8_length(p[0]);
	if (p[0] == 0xE0)
		low = 0xA0; /* shorter forms exist below */
	else if (p[0] == 0xED)
		high = 0x9F; /* surrogates above */
	else if (p[0] == 0xF0)
		low = 0x90;
	else if (p[0] == 0xF4)
		high = 0x8F; /* past U+10FFFF above */
	for (size_t i = 1; i < need; i++) {
		if (i >= left || p[i] < low || p[i] > high) {
			*ret_bad = i;
			return 0;
		}
		low = 0x80;
		high = 0xBF;
	}
	return need;
}

size_t mc_utf8_valid(const char *text, size_t length)
{
	const unsigned char *p = (const unsigned char *)text;
	size_t at = 0, bad = 0;

	while (at < length) {
		size_t n = check_character(p + at, length - at, &bad);

		if (n == 0)
			break;
		at += n;
	}
	return at;
}

bool mc_utf8_mend(const char *text, size_t length, struct mc_tok_text *out, struct mc_error *err)
{
	size_t at = 0, bad = 0;

	while (at < length) {
		size_t valid = mc_utf8_valid(text + at, length - at);

		if (!mc_tok_add(out, text + at, valid, err))
			return false;
		at += valid;
		if (at == length)
			break;
		(void)check_character((const unsigned char *)text + at, length - at, &bad);
		if (!mc_tok_add(out, "\xEF\xBF\xBD", 3, err))
			return false;
		at += bad;
	}
	return true;
}

bool mc_is_white_space(uint32_t c)
{
	return (c >= 0x9 && c <= 0xD) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
	       (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
	       c == 0x205F || c == 0x3000;
}

bool mc_is_numeric(uint32_t code)
{
	utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);

	return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
	       category == UTF8PROC_CATEGORY_NO;
}
