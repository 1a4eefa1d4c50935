/*
 * tokenizer_split.c - find a pattern in a text: plain strings, characters, and expressions by PCRE2
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

/* Measured: the default stack of compiled expressions ends at some thousand characters of one
 * match, this one at some hundred thousand. Past that the interpreter goes on, on the heap. */
#define JIT_STACK_FIRST ((size_t)32 << 10)
#define JIT_STACK_LARGEST ((size_t)1 << 20)
#define HEAP_LIMIT_KIB (256u << 10)

struct mc_tok_regex {
	pcre2_code *code;
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
};

/* --- one expression --------------------------------------------------------------------------- */

static bool compile(
    struct mc_tok_regex *regex, const char *text, size_t length, struct mc_error *err)
{
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	int reason = 0;
	PCRE2_SIZE at = 0;
	PCRE2_UCHAR words[128] = "";

	if (!context)
		return mc_fail(err, MC_NO_MEMORY, "", "no memory for an expression");
	pcre2_set_newline(context, PCRE2_NEWLINE_LF);
	/* Lines, because the reference's anchors stand at every line. No UCP: the translation has
	 * spelled out what depends on it. */
	regex->code = pcre2_compile((PCRE2_SPTR)text, length,
	    PCRE2_UTF | PCRE2_MULTILINE | PCRE2_NEVER_BACKSLASH_C, &reason, &at, context);
	pcre2_compile_context_free(context);
	if (regex->code)
		return true;
	(void)pcre2_get_error_message(reason, words, sizeof(words));
	return mc_fail(err, MC_UNSUPPORTED, "",
	    "the expression cannot be compiled: %s (at byte %zu)", (const char *)words, (size_t)at);
}

struct mc_tok_regex *mc_tok_regex_new(const char *text, size_t length, struct mc_error *err)
{
	struct mc_tok_regex *regex = mc_alloc(1, sizeof(*regex), "an expression", err);

	if (!regex)
		return NULL;
	if (!compile(regex, text, length, err)) {
		mc_tok_regex_free(regex);
		return NULL;
	}
	regex->data = pcre2_match_data_create_from_pattern(regex->code, NULL);
	regex->context = pcre2_match_context_create(NULL);
	if (!regex->data || !regex->context) {
		mc_fail(err, MC_NO_MEMORY, "", "no memory for an expression");
		mc_tok_regex_free(regex);
		return NULL;
	}
	pcre2_set_heap_limit(regex->context, HEAP_LIMIT_KIB);
	/* Without the compiler for this machine the interpreter does the same, slower. */
	if (pcre2_jit_compile(regex->code, PCRE2_JIT_COMPLETE) == 0) {
		regex->stack = pcre2_jit_stack_create(JIT_STACK_FIRST, JIT_STACK_LARGEST, NULL);
		if (regex->stack)
			pcre2_jit_stack_assign(regex->context, NULL, regex->stack);
	}
	return regex;
}

void mc_tok_regex_free(struct mc_tok_regex *regex)
{
	if (!regex)
		return;
	pcre2_jit_stack_free(regex->stack);
	pcre2_match_context_free(regex->context);
	pcre2_match_data_free(regex->data);
	pcre2_code_free(regex->code);
	free(regex);
}

bool mc_tok_regex_find(struct mc_tok_regex *regex, const char *text, size_t length, size_t from,
    bool *ret_found, size_t *ret_begin, size_t *ret_end, struct mc_error *err)
{
	const PCRE2_SIZE *span;
	PCRE2_UCHAR words[128] = "";
	int result = pcre2_match(regex->code, (PCRE2_SPTR)text, length, from, PCRE2_NO_UTF_CHECK,
	    regex->data, regex->context);

	if (result == PCRE2_ERROR_JIT_STACKLIMIT)
		result = pcre2_match(regex->code, (PCRE2_SPTR)text, length, from,
		    PCRE2_NO_UTF_CHECK | PCRE2_NO_JIT, regex->data, regex->context);
	*ret_found = result >= 0;
	if (result == PCRE2_ERROR_NOMATCH)
		return true;
	if (result == PCRE2_ERROR_NOMEMORY)
		return mc_fail(err, MC_NO_MEMORY, "", "no memory to search for an expression");
	if (result < 0) {
		(void)pcre2_get_error_message(result, words, sizeof(words));
		return mc_fail(err, MC_UNSUPPORTED, "",
		    "an expression of the tokenizer gave up on a text of %zu bytes: %s", length,
		    (const char *)words);
	}
	span = pcre2_get_ovector_pointer(regex->data);
	*ret_begin = span[0];
	*ret_end = span[1];
	return true;
}

/* --- patterns --------------------------------------------------------------------------------- */

bool mc_tok_pattern_compile(struct mc_tok_pattern *pattern, const char *expression, size_t length,
    const char *who, const char *where, struct mc_error *err)
{
	struct mc_error reason;
	struct mc_buf text;

	*pattern = (struct mc_tok_pattern){.kind = MC_TOK_PATTERN_REGEX};
	mc_error_init(&reason);
	mc_buf_init(&text, (size_t)16 << 20);
	if (mc_tok_translate(expression, length, &text, &reason))
		pattern->regex = mc_tok_regex_new(mc_buf_text(&text), text.length, &reason);
	mc_buf_release(&text);
	if (!pattern->regex)
		return mc_fail(err, reason.code, where, "%s: %s", who, reason.text);
	return true;
}

bool mc_tok_pattern_read(
    struct mc_tok_pattern *pattern, const struct mc_tok_node *node, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(node->json, "pattern");
	struct mc_json_iter member = mc_json_iter(value);
	char who[128];
	const char *text;
	size_t length;

	*pattern = (struct mc_tok_pattern){.kind = MC_TOK_PATTERN_STRING};
	if (mc_json_type(value) != MC_JSON_OBJECT || mc_json_size(value) != 1 ||
	    !mc_json_next(&member) || mc_json_type(member.value) != MC_JSON_STRING)
		return mc_fail(err, MC_CORRUPT, node->where,
		    "%s %s: \"pattern\" is not {\"String\": text} or {\"Regex\": text}", node->role,
		    node->type);
	text = mc_json_string(member.value, &length);
	if (strcmp(member.key, "String") == 0)
		return mc_tok_add(&pattern->string, text, length, err);
	snprintf(who, sizeof(who), "%s %.64s", node->role, node->type);
	if (strcmp(member.key, "Regex") == 0)
		return mc_tok_pattern_compile(pattern, text, length, who, node->where, err);
	return mc_fail(
	    err, MC_UNSUPPORTED, node->where, "%s: a pattern of kind \"%.64s\"", who, member.key);
}

void mc_tok_pattern_release(struct mc_tok_pattern *pattern)
{
	mc_tok_text_release(&pattern->string);
	mc_tok_regex_free(pattern->regex);
	*pattern = (struct mc_tok_pattern){0};
}

/* --- all matches in a text -------------------------------------------------------------------- */

void mc_tok_finder_init(struct mc_tok_finder *finder, const struct mc_tok_pattern *pattern,
    const char *text, size_t length)
{
	*finder = (struct mc_tok_finder){
	    .pattern = pattern, .text = text, .length = length, .last_end = SIZE_MAX};
}

static bool find_string(const struct mc_tok_finder *finder, size_t *ret_begin, size_t *ret_end)
{
	const struct mc_tok_text *string = &finder->pattern->string;
	const char *at = finder->text + finder->from;

	if (string->length > 0)
		at = memmem(at, finder->length - finder->from, string->bytes, string->length);
	if (!at)
		return false;
	*ret_begin = (size_t)(at - finder->text);
	*ret_end = *ret_begin + string->length;
	return true;
}

static bool find_numeric(const struct mc_tok_finder *finder, size_t *ret_begin, size_t *ret_end)
{
	size_t bytes;

	for (size_t at = finder->from; at < finder->length; at += bytes) {
		if (mc_is_numeric(mc_utf8_decode(finder->text + at, &bytes))) {
			*ret_begin = at;
			*ret_end = at + bytes;
			return true;
		}
	}
	return false;
}

bool mc_tok_finder_next(struct mc_tok_finder *finder, bool *ret_found, size_t *ret_begin,
    size_t *ret_end, struct mc_error *err)
{
	for (*ret_found = false; finder->from <= finder->length;) {
		switch (finder->pattern->kind) {
		case MC_TOK_PATTERN_STRING:
			*ret_found = find_string(finder, ret_begin, ret_end);
			break;
		case MC_TOK_PATTERN_NUMERIC:
			*ret_found = find_numeric(finder, ret_begin, ret_end);
			break;
		case MC_TOK_PATTERN_REGEX:
			if (!mc_tok_regex_find(finder->pattern->regex, finder->text, finder->length,
				finder->from, ret_found, ret_begin, ret_end, err))
				return false;
			break;
		}
		if (!*ret_found)
			return true;
		finder->from = *ret_end;
		if (*ret_begin != *ret_end || *ret_end != finder->last_end) {
			finder->last_end = *ret_end;
			return true;
		}
		/* Empty and right behind the match before: look one character further. */
		*ret_found = false;
		finder->from += finder->from < finder->length
				    ? mc_utf8_length((unsigned char)finder->text[finder->from])
				    : 1;
	}
	return true;
}
