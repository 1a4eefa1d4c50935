/*
 * tokenizer_maker.h - tokenizers of a few tokens, and ids as text, for the tests
 */
#ifndef TOKENIZER_MAKER_H
#define TOKENIZER_MAKER_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "moecal/tokenizer.h"

/* Members of tokenizer.json as JSON texts; NULL: null, or the empty list or object. */
struct parts {
	const char *normalizer, *pre, *post, *added, *vocab, *merges;
	const char *model;  /* more members of the model, each with a comma behind it */
	const char *config; /* tokenizer_config.json */
};

static inline char *json_of(const struct parts *p)
{
	char *text = NULL;

	assert_true(
	    asprintf(&text,
		"{\"version\":\"1.0\",\"truncation\":null,\"padding\":null,"
		"\"added_tokens\":%s,\"normalizer\":%s,\"pre_tokenizer\":%s,"
		"\"post_processor\":%s,\"decoder\":null,\"model\":{\"type\":\"BPE\",%s"
		"\"vocab\":%s,\"merges\":%s}}",
		p->added ? p->added : "[]", p->normalizer ? p->normalizer : "null",
		p->pre ? p->pre : "null", p->post ? p->post : "null", p->model ? p->model : "",
		p->vocab ? p->vocab : "{\"a\":0}", p->merges ? p->merges : "[]") > 0);
	return text;
}

static inline struct mc_tokenizer *try_make(const struct parts *p, struct mc_error *err)
{
	char *json = json_of(p);
	struct mc_tokenizer *tokenizer = mc_tokenizer_new(
	    json, strlen(json), p->config, p->config ? strlen(p->config) : 0, err);

	free(json);
	return tokenizer;
}

static inline struct mc_tokenizer *make(struct parts p)
{
	struct mc_error err;
	struct mc_tokenizer *tokenizer;

	mc_error_init(&err);
	tokenizer = try_make(&p, &err);
	if (!tokenizer)
		fail_msg("%s: %s", err.where, err.text);
	return tokenizer;
}

/* The ids with a space between, in a buffer that the next call overwrites. */
static inline const char *ids_of(const struct mc_ids *ids)
{
	static char text[4096];
	size_t length = 0;

	text[0] = '\0';
	for (size_t i = 0; i < ids->count && length < sizeof(text) - 16; i++)
		length += (size_t)snprintf(
		    text + length, sizeof(text) - length, "%s%u", i ? " " : "", ids->ids[i]);
	return text;
}

static inline const char *encode_as(struct mc_tokenizer *tokenizer, const char *text, size_t length,
    enum mc_add_special add, bool match_special)
{
	struct mc_ids ids = {0};
	struct mc_error err;
	const char *shown;

	mc_error_init(&err);
	if (!mc_tokenizer_encode(tokenizer, text, length, add, match_special, &ids, &err))
		fail_msg("%s: %s", err.where, err.text);
	shown = ids_of(&ids);
	mc_ids_release(&ids);
	return shown;
}

static inline const char *encode(struct mc_tokenizer *tokenizer, const char *text)
{
	return encode_as(tokenizer, text, strlen(text), MC_ADD_SPECIAL_YES, true);
}

#define assert_encodes(tokenizer, text, ids) assert_string_equal(encode(tokenizer, text), ids)

#endif
