/*
 * tokenizer_pattern.c - expressions of tokenizer.json in PCRE2's language
 *
 * The files hold expressions for Oniguruma in its Ruby syntax. What both read alike is copied, what
 * they read differently is spelled out, and what is left is refused by name. The differences that
 * published tokenizers meet: \s (another set), \p{Han} and other scripts (PCRE2 means extensions),
 * sets inside of character classes and && between them (PCRE2 10.42 has neither, and reads && as
 * two letters without a word). Classes with those are computed over all code points and written as
 * plain ranges.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

#define CODES 0x110000u
#define DEEPEST 16u        /* nested classes; ours */
#define MOST_COMPUTED 256u /* sets computed for one expression; ours */

/* Members of classes, as PCRE2 writes them. */
#define SPACES                                                                                     \
	"\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"         \
	"\\x{202f}\\x{205f}\\x{3000}"
#define NOT_SPACES                                                                                 \
	"\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}"               \
	"\\x{1681}-\\x{1fff}\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}"             \
	"\\x{2060}-\\x{2fff}\\x{3001}-\\x{10ffff}"
#define WORDS "\\p{Alphabetic}\\p{M}\\p{Nd}\\p{Pc}"
#define HEX_DIGITS "0-9A-Fa-f"

struct translator {
	const char *start, *p, *end; /* the expression */
	struct mc_buf *out;
	struct mc_error *err;
	char *all; /* every code point in order; made when a class must be computed; owned */
	size_t all_length;
	unsigned computed;
};

/* One set of code points. */
struct set {
	unsigned char bits[CODES / 8];
};

/* One thing inside of a class. */
struct item {
	enum { ITEM_CHAR, ITEM_MEMBERS, ITEM_NOT_MEMBERS, ITEM_CLASS, ITEM_AND, ITEM_END } kind;
	uint32_t code;     /* of CHAR */
	char members[400]; /* of MEMBERS and NOT_MEMBERS */
};

static bool refuse(struct translator *t, const char *at, const char *what)
{
	return mc_fail(t->err, MC_UNSUPPORTED, "",
	    "the expression has %s at byte %zu, which is not supported", what,
	    (size_t)(at - t->start));
}

static bool broken(struct translator *t, const char *what)
{
	return mc_fail(t->err, MC_UNSUPPORTED, "", "the expression cannot be compiled: %s", what);
}

static bool put(struct translator *t, const char *text)
{
	return mc_buf_add(t->out, text, strlen(text), t->err);
}

static bool is_letter_or_digit(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

/* --- escapes ---------------------------------------------------------------------------------- */

/* Up to `most` hex digits at t->p. */
static bool read_hex(struct translator *t, size_t least, size_t most, uint32_t *ret_code)
{
	size_t digits = 0;
	uint32_t code = 0;

	for (; digits < most && t->p < t->end; digits++, t->p++) {
		char c = *t->p;

		if (c >= '0' && c <= '9')
			code = code * 16 + (uint32_t)(c - '0');
		else if ((c | 32) >= 'a' && (c | 32) <= 'f')
			code = code * 16 + (uint32_t)((c | 32) - 'a' + 10);
		else
			break;
	}
	*ret_code = code;
	if (digits < least || code >= CODES || (code >= 0xD800 && code <= 0xDFFF))
		return broken(t, "an escape that is no character");
	return true;
}

/* Behind "\x": two digits or {...}. */
static bool read_hex_escape(struct translator *t, uint32_t *ret_code)
{
	const char *at = t->p;

	if (t->p < t->end && *t->p == '{') {
		t->p++;
		if (!read_hex(t, 1, 6, ret_code))
			return false;
		if (t->p == t->end || *t->p++ != '}')
			return broken(t, "\\x{ without }");
		return true;
	}
	if (!read_hex(t, 1, 2, ret_code))
		return false;
	/* One byte of a longer character, to the reference. */
	return *ret_code < 0x80 || refuse(t, at, "\\x with a byte above 7F");
}

/* Is it the name of a script? PCRE2 knows; asked by compiling. */
static bool is_script(const char *name)
{
	struct mc_error ignored;
	struct mc_tok_regex *probe;
	char text[80];

	mc_error_init(&ignored);
	snprintf(text, sizeof(text), "\\p{sc:%s}", name);
	probe = mc_tok_regex_new(text, strlen(text), &ignored);
	mc_tok_regex_free(probe);
	return probe != NULL;
}

/* Behind "\p" or "\P": a property as members of a class. */
static bool read_property(struct translator *t, bool negated, struct item *item)
{
	const char *at = t->p, *close;
	char name[48];
	size_t length;

	if (t->p == t->end || *t->p != '{' || !(close = memchr(t->p, '}', (size_t)(t->end - t->p))))
		return refuse(t, at, "\\p without a name in braces");
	t->p++;
	if (t->p < close && *t->p == '^') {
		negated = !negated;
		t->p++;
	}
	length = (size_t)(close - t->p);
	if (length == 0 || length >= sizeof(name))
		return refuse(t, at, "a property of an unknown name");
	memcpy(name, t->p, length);
	name[length] = '\0';
	for (size_t i = 0; i < length; i++) {
		if (!is_letter_or_digit(name[i]) && !strchr("_- ", name[i]))
			return refuse(t, at, "a property of an unknown name");
	}
	t->p = close + 1;
	/* Names of general categories have one or two letters, those of scripts more. */
	snprintf(item->members, sizeof(item->members), "\\%c{%s%s}", negated ? 'P' : 'p',
	    length > 2 && is_script(name) ? "sc:" : "", name);
	item->kind = ITEM_MEMBERS;
	return true;
}

static void set_members(struct item *item, bool negated, const char *members)
{
	item->kind = negated ? ITEM_NOT_MEMBERS : ITEM_MEMBERS;
	snprintf(item->members, sizeof(item->members), "%s", members);
}

/* Behind a backslash, inside or outside of a class: a character or a set of them. */
static bool read_escape(struct translator *t, struct item *item)
{
	static const char letters[] = "tnrfave";
	static const char meanings[] = "\t\n\r\f\a\v\033";
	const char *at = t->p - 1, *letter;
	char what[8];
	size_t bytes;

	if (t->p == t->end)
		return broken(t, "it ends with a backslash");
	item->kind = ITEM_CHAR;
	char c = *t->p;
	if (!is_letter_or_digit(c)) {
		item->code = mc_utf8_decode(t->p, &bytes);
		t->p += bytes;
		return true;
	}
	t->p++;
	letter = strchr(letters, c);
	if (letter) {
		item->code = (unsigned char)meanings[letter - letters];
		return true;
	}
	if (c == 's' || c == 'S')
		set_members(item, false, c == 's' ? SPACES : NOT_SPACES);
	else if (c == 'd' || c == 'D')
		set_members(item, false, c == 'd' ? "\\p{Nd}" : "\\P{Nd}");
	else if (c == 'w' || c == 'W')
		set_members(item, c == 'W', WORDS);
	else if (c == 'h' || c == 'H')
		set_members(item, c == 'H', HEX_DIGITS);
	else if (c == 'p' || c == 'P')
		return read_property(t, c == 'P', item);
	else if (c == 'x')
		return read_hex_escape(t, &item->code);
	else if (c == 'u')
		return read_hex(t, 4, 4, &item->code);
	else {
		snprintf(what, sizeof(what), "\\%c", c);
		return refuse(t, at, what);
	}
	return true;
}

/* --- classes ---------------------------------------------------------------------------------- */

/* [:name:] inside of a class. */
static bool read_posix(struct translator *t, struct item *item)
{
	static const struct {
		const char *name, *members;
	} known[] = {
	    {"[:space:]", SPACES},
	    {"[:digit:]", "\\p{Nd}"},
	    {"[:alpha:]", "\\p{Alphabetic}"},
	    {"[:alnum:]", "\\p{Alphabetic}\\p{Nd}"},
	    {"[:upper:]", "\\p{Uppercase}"},
	    {"[:lower:]", "\\p{Lowercase}"},
	    {"[:xdigit:]", HEX_DIGITS},
	    {"[:word:]", WORDS},
	};

	for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
		size_t length = strlen(known[i].name);

		if ((size_t)(t->end - t->p) >= length && memcmp(t->p, known[i].name, length) == 0) {
			t->p += length;
			set_members(item, false, known[i].members);
			return true;
		}
	}
	return refuse(t, t->p, "a [:class:] of an unknown name");
}

/* first: nothing of the class was read yet, so that ] is a character. */
static bool read_item(struct translator *t, bool first, struct item *item)
{
	size_t bytes;

	if (t->p == t->end)
		return broken(t, "a [ without ]");
	if (*t->p == ']' && !first) {
		t->p++;
		item->kind = ITEM_END;
		return true;
	}
	if (*t->p == '[') {
		if (t->end - t->p > 1 && t->p[1] == ':')
			return read_posix(t, item);
		t->p++;
		item->kind = ITEM_CLASS;
		return true;
	}
	if (t->end - t->p > 1 && t->p[0] == '&' && t->p[1] == '&') {
		t->p += 2;
		item->kind = ITEM_AND;
		return true;
	}
	if (*t->p == '\\') {
		t->p++;
		return read_escape(t, item);
	}
	item->kind = ITEM_CHAR;
	item->code = mc_utf8_decode(t->p, &bytes);
	t->p += bytes;
	return true;
}

/* `item` was a character: takes the rest of a range, if one follows. */
static bool read_range(struct translator *t, const struct item *item, uint32_t *ret_last)
{
	const char *dash = t->p;
	struct item last;

	*ret_last = item->code;
	if (t->end - t->p < 2 || *t->p != '-' || t->p[1] == ']' || t->p[1] == '[')
		return true;
	t->p++;
	if (!read_item(t, false, &last))
		return false;
	if (last.kind != ITEM_CHAR)
		t->p = dash; /* the dash stands for itself */
	else if (last.code < item->code)
		return broken(t, "a range that runs backwards");
	else
		*ret_last = last.code;
	return true;
}

static bool put_range(struct translator *t, struct mc_buf *out, uint32_t first, uint32_t last)
{
	return first == last
		   ? mc_buf_addf(out, t->err, "\\x{%" PRIx32 "}", first)
		   : mc_buf_addf(out, t->err, "\\x{%" PRIx32 "}-\\x{%" PRIx32 "}", first, last);
}

/* Every code point in order, without surrogates. */
static bool make_all(struct translator *t)
{
	if (t->all)
		return true;
	t->all = mc_alloc((size_t)CODES * 4, 1, "all characters", t->err);
	if (!t->all)
		return false;
	for (uint32_t code = 0; code < CODES; code++) {
		if (code < 0xD800 || code > 0xDFFF)
			t->all_length += mc_utf8_encode(code, t->all + t->all_length);
	}
	return true;
}

static void set_range(struct set *set, uint32_t first, uint32_t last)
{
	for (uint32_t code = first; code <= last; code++)
		set->bits[code / 8] |= (unsigned char)(1u << code % 8);
}

/* Adds what PCRE2 finds for a class of these members. */
static bool add_members(struct translator *t, struct set *set, const char *members, bool negated)
{
	char *text = mc_format(t->err, "[%s%s]+", negated ? "^" : "", members);
	struct mc_tok_regex *regex = NULL;
	size_t at = 0, end = 0, bytes;
	bool found = true, ok = false;

	if (++t->computed > MOST_COMPUTED)
		ok = refuse(t, t->p, "too many classes with && or classes inside");
	else if (text && make_all(t))
		ok = (regex = mc_tok_regex_new(text, strlen(text), t->err)) != NULL;
	while (ok && found) {
		ok = mc_tok_regex_find(
		    regex, t->all, t->all_length, end, &found, &at, &end, t->err);
		if (ok && found)
			set_range(set, mc_utf8_decode(t->all + at, &bytes),
			    mc_utf8_decode(t->all + mc_utf8_before(t->all, end), &bytes));
	}
	mc_tok_regex_free(regex);
	free(text);
	return ok;
}

static bool compute_class(struct translator *t, unsigned depth, struct set *result);

static bool compute_item(
    struct translator *t, struct item *item, unsigned depth, struct set *operand)
{
	uint32_t last;

	if (item->kind == ITEM_CHAR) {
		if (!read_range(t, item, &last))
			return false;
		set_range(operand, item->code, last);
		return true;
	}
	if (item->kind != ITEM_CLASS)
		return add_members(t, operand, item->members, item->kind == ITEM_NOT_MEMBERS);
	struct set *inner = mc_alloc(1, sizeof(*inner), "a character class", t->err);
	bool ok = inner && compute_class(t, depth + 1, inner);
	for (size_t i = 0; ok && i < sizeof(inner->bits); i++)
		operand->bits[i] |= inner->bits[i];
	free(inner);
	return ok;
}

/* Behind the [ of a class, to behind its ]. */
static bool compute_class(struct translator *t, unsigned depth, struct set *result)
{
	struct set *operand = mc_alloc(1, sizeof(*operand), "a character class", t->err);
	bool negated = t->p < t->end && *t->p == '^';
	bool ok = operand != NULL, first = true;
	struct item item = {.kind = ITEM_CHAR};

	if (negated)
		t->p++;
	memset(result->bits, 0xFF, sizeof(result->bits));
	if (depth > DEEPEST)
		ok = refuse(t, t->p, "classes nested too deep");
	while (ok && item.kind != ITEM_END) {
		ok = read_item(t, first, &item);
		first = false;
		if (!ok)
			break;
		if (item.kind != ITEM_AND && item.kind != ITEM_END) {
			ok = compute_item(t, &item, depth, operand);
			continue;
		}
		for (size_t i = 0; i < sizeof(result->bits); i++)
			result->bits[i] &= operand->bits[i];
		memset(operand->bits, 0, sizeof(operand->bits));
	}
	for (size_t i = 0; ok && negated && i < sizeof(result->bits); i++)
		result->bits[i] = (unsigned char)~result->bits[i];
	free(operand);
	return ok;
}

static bool put_set(struct translator *t, const struct set *set)
{
	bool ok = put(t, "["), empty = true;

	for (uint32_t code = 0, last; code < CODES && ok; code = last + 1) {
		last = code;
		if (!(set->bits[code / 8] >> code % 8 & 1))
			continue;
		while (last + 1 < CODES && (set->bits[(last + 1) / 8] >> (last + 1) % 8 & 1))
			last++;
		/* A surrogate is no character, and PCRE2 has no name for it. */
		uint32_t begin = code >= 0xD800 && code <= 0xDFFF ? 0xE000 : code;
		uint32_t end = last >= 0xD800 && last <= 0xDFFF ? 0xD7FF : last;
		if (begin <= end) {
			ok = put_range(t, t->out, begin, end);
			empty = false;
		}
	}
	if (ok && empty) {
		t->out->length--;
		return put(t, "(?!)");
	}
	return ok && put(t, "]");
}

/* Members of a class without classes inside, &&, \W or \H. *ret_plain: it was one. */
static bool plain_class(struct translator *t, struct mc_buf *members, bool *ret_plain)
{
	struct item item;
	uint32_t last;

	for (bool first = true;; first = false) {
		if (!read_item(t, first, &item))
			return false;
		*ret_plain = item.kind == ITEM_END;
		if (item.kind == ITEM_CHAR) {
			if (!read_range(t, &item, &last) || !put_range(t, members, item.code, last))
				return false;
		} else if (item.kind == ITEM_MEMBERS) {
			if (!mc_buf_add(members, item.members, strlen(item.members), t->err))
				return false;
		} else {
			return true;
		}
	}
}

/* Behind a [ that stands in no class. */
static bool translate_class(struct translator *t)
{
	const char *begin = t->p;
	struct set *set = NULL;
	struct mc_buf members;
	bool plain = false, ok;
	bool negated = t->p < t->end && *t->p == '^';

	mc_buf_init(&members, (size_t)1 << 20);
	if (negated)
		t->p++;
	ok = plain_class(t, &members, &plain);
	if (ok && plain) {
		ok = put(t, negated ? "[^" : "[") && put(t, mc_buf_text(&members)) && put(t, "]");
	} else if (ok) {
		t->p = begin;
		set = mc_alloc(1, sizeof(*set), "a character class", t->err);
		ok = set && compute_class(t, 0, set) && put_set(t, set);
		free(set);
	}
	mc_buf_release(&members);
	return ok;
}

/* --- the rest --------------------------------------------------------------------------------- */

static bool translate_escape(struct translator *t)
{
	struct item item;

	if (t->p < t->end && (*t->p == 'A' || *t->p == 'z')) {
		const char anchor[] = {'\\', *t->p++, '\0'};
		return put(t, anchor);
	}
	if (!read_escape(t, &item))
		return false;
	if (item.kind == ITEM_CHAR)
		return mc_buf_addf(t->out, t->err, "\\x{%" PRIx32 "}", item.code);
	return put(t, item.kind == ITEM_NOT_MEMBERS ? "[^" : "[") && put(t, item.members) &&
	       put(t, "]");
}

static bool starts_with(const struct translator *t, const char *text)
{
	size_t length = strlen(text);

	return (size_t)(t->end - t->p) >= length && memcmp(t->p, text, length) == 0;
}

/* Behind "(?", when letters or a minus follow: options of a group. */
static bool translate_options(struct translator *t, const char *open)
{
	bool ok = put(t, "(?");

	for (; ok && t->p < t->end && strchr("im-", *t->p); t->p++) {
		/* Ruby's m lets the dot match line feeds. */
		const char letter[] = {*t->p == 'm' ? 's' : *t->p, '\0'};
		ok = put(t, letter);
	}
	if (!ok || t->p == t->end)
		return ok && broken(t, "a ( without )");
	if (*t->p == ':' || (*t->p == ')' && open == t->start)) {
		const char mark[] = {*t->p++, '\0'};
		return put(t, mark);
	}
	/* In the middle, Ruby lets options reach over a |, PCRE2 does not. */
	return refuse(t, open, "options that are not those of a (?i:...) group");
}

/* Behind a "(". */
static bool translate_group(struct translator *t)
{
	static const char *const alike[] = {"?:", "?=", "?!", "?>", "?<=", "?<!"};
	const char *open = t->p - 1;

	if (t->p == t->end || (*t->p != '?' && *t->p != '*'))
		return put(t, "(?:"); /* nothing refers to what a group has caught */
	if (*t->p == '*')
		return refuse(t, open, "(*");
	for (size_t i = 0; i < sizeof(alike) / sizeof(alike[0]); i++) {
		if (starts_with(t, alike[i])) {
			t->p += strlen(alike[i]);
			return put(t, "(") && put(t, alike[i]);
		}
	}
	t->p++;
	if (t->p < t->end && strchr("im-", *t->p))
		return translate_options(t, open);
	return refuse(t, open, "a group of another kind than (?: ?= ?! ?> ?<= ?<! ?i:");
}

static const char *skip_digits(const char *p, const char *end)
{
	while (p < end && *p >= '0' && *p <= '9')
		p++;
	return p;
}

/* Behind a "{": a count of repetitions, or a brace that stands for itself. */
static bool translate_brace(struct translator *t)
{
	const char *least_end = skip_digits(t->p, t->end), *close = least_end;
	bool comma = close < t->end && *close == ',';

	if (comma)
		close = skip_digits(close + 1, t->end);
	if (close == t->end || *close != '}' || close - t->p == (comma ? 1 : 0))
		return put(t, "\\{");
	/* {,3} counts from 0 in Ruby and is text in PCRE2 */
	bool ok = put(t, least_end == t->p ? "{0" : "{") &&
		  mc_buf_add(t->out, t->p, (size_t)(close + 1 - t->p), t->err);
	t->p = close + 1;
	if (ok && t->p < t->end && (*t->p == '+' || (*t->p == '?' && !comma)))
		return refuse(t, t->p, "+ or ? behind a count in braces");
	return ok;
}

static bool translate(struct translator *t)
{
	while (t->p < t->end) {
		const char *here = t->p++;
		bool ok;

		if (*here == '\\')
			ok = translate_escape(t);
		else if (*here == '[')
			ok = translate_class(t);
		else if (*here == '(')
			ok = translate_group(t);
		else if (*here == '{')
			ok = translate_brace(t);
		else
			ok = mc_buf_add(t->out, here, 1, t->err);
		if (!ok)
			return false;
	}
	return true;
}

bool mc_tok_translate(
    const char *expression, size_t length, struct mc_buf *out, struct mc_error *err)
{
	struct translator t = {.start = expression,
	    .p = expression,
	    .end = expression + length,
	    .out = out,
	    .err = err};
	bool ok = translate(&t);

	free(t.all);
	return ok;
}
