/*
 * tokenizer.c - the tokenizer as a whole: read tokenizer.json, take a text through its parts
 */
#include "moecal/tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

#define LONGEST_TEXT ((size_t)256 << 20) /* bytes */

struct mc_tokenizer {
	struct mc_tok_normalizers normalizers;
	struct mc_tok_steps steps;
	struct mc_tok_bpe *bpe;
	struct mc_tok_added *added;
	struct mc_tok_frame template; /* of tokenizer.json */
	struct mc_tok_frame flags;    /* of tokenizer_config.json */
	bool flags_decide;            /* under MC_ADD_SPECIAL_AUTO */
	struct mc_tok_text mended;    /* scratch: a text whose UTF-8 was not valid */
	struct mc_tok_text gap;       /* scratch: a gap between added tokens, normalized */
	struct mc_tok_pieces pieces;  /* scratch */
};

void mc_ids_release(struct mc_ids *ids)
{
	free(ids->ids);
	*ids = (struct mc_ids){0};
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Bad JSON is a broken file here, not a broken request. */
static struct mc_json *parse_file(
    const char *text, size_t length, const char *name, struct mc_error *err)
{
	struct mc_error reason;
	struct mc_json *json;

	mc_error_init(&reason);
	json = mc_json_parse(text, length, name, &reason);
	if (!json) {
		mc_fail(err, reason.code == MC_INVALID ? MC_CORRUPT : reason.code, name, "%s",
		    reason.text);
		return NULL;
	}
	if (mc_json_type(json) != MC_JSON_OBJECT) {
		mc_fail(err, MC_CORRUPT, name, "the file holds a %s, needed an object",
		    mc_json_type_name(mc_json_type(json)));
		mc_json_free(json);
		return NULL;
	}
	return json;
}

/* truncation and padding are settings of a session that was saved, decoder is for the way back:
 * none of them changes what a text becomes. */
static bool check_members(const struct mc_json *json, struct mc_error *err)
{
	static const char *const known[] = {"version", "truncation", "padding", "added_tokens",
	    "normalizer", "pre_tokenizer", "post_processor", "decoder", "model"};
	const struct mc_json *version = mc_json_get(json, "version");
	struct mc_json_iter member = mc_json_iter(json);

	while (mc_json_next(&member)) {
		size_t i = 0, count = sizeof(known) / sizeof(known[0]);

		while (i < count && strcmp(known[i], member.key) != 0)
			i++;
		if (i == count)
			return mc_fail(err, MC_UNSUPPORTED, "tokenizer.json",
			    "the member \"%.64s\" is not known", member.key);
	}
	if (version && mc_json_type(version) != MC_JSON_STRING)
		return mc_fail(err, MC_CORRUPT, "tokenizer.json /version",
		    "the version is a %s, needed a text", mc_json_type_name(mc_json_type(version)));
	if (version && strcmp(mc_json_string(version, NULL), "1.0") != 0)
		return mc_fail(err, MC_UNSUPPORTED, "tokenizer.json /version",
		    "version %.64s is not supported, needed 1.0", mc_json_string(version, NULL));
	return true;
}

static bool read_parts(
    struct mc_tokenizer *tokenizer, const struct mc_json *json, struct mc_error *err)
{
	if (!check_members(json, err) ||
	    !mc_tok_normalizers_read(
		&tokenizer->normalizers, mc_json_get(json, "normalizer"), err) ||
	    !mc_tok_steps_read(&tokenizer->steps, mc_json_get(json, "pre_tokenizer"), err) ||
	    !mc_tok_frame_read(&tokenizer->template, mc_json_get(json, "post_processor"), err))
		return false;
	tokenizer->bpe = mc_tok_bpe_new(mc_json_get(json, "model"), err);
	if (!tokenizer->bpe)
		return false;
	tokenizer->added = mc_tok_added_new(mc_json_get(json, "added_tokens"),
	    mc_tok_bpe_vocab(tokenizer->bpe), &tokenizer->normalizers, err);
	return tokenizer->added != NULL;
}

static bool read_config(
    struct mc_tokenizer *tokenizer, const char *text, size_t length, struct mc_error *err)
{
	struct mc_json *config = parse_file(text, length, "tokenizer_config.json", err);
	bool ok = config && mc_tok_frame_of_flags(&tokenizer->flags, config, tokenizer->added,
				mc_tok_bpe_vocab(tokenizer->bpe), &tokenizer->flags_decide, err);

	mc_json_free(config);
	return ok;
}

struct mc_tokenizer *mc_tokenizer_new(const char *json, size_t json_length, const char *config_json,
    size_t config_length, struct mc_error *err)
{
	struct mc_tokenizer *tokenizer = mc_alloc(1, sizeof(*tokenizer), "a tokenizer", err);
	struct mc_json *root = NULL;
	bool ok = tokenizer && (root = parse_file(json, json_length, "tokenizer.json", err)) &&
		  read_parts(tokenizer, root, err);

	mc_json_free(root);
	if (ok && config_json)
		ok = read_config(tokenizer, config_json, config_length, err);
	if (ok)
		return tokenizer;
	mc_tokenizer_free(tokenizer);
	return NULL;
}

void mc_tokenizer_free(struct mc_tokenizer *tokenizer)
{
	if (!tokenizer)
		return;
	mc_tok_normalizers_release(&tokenizer->normalizers);
	mc_tok_steps_release(&tokenizer->steps);
	mc_tok_bpe_free(tokenizer->bpe);
	mc_tok_added_free(tokenizer->added);
	mc_tok_frame_release(&tokenizer->template);
	mc_tok_frame_release(&tokenizer->flags);
	mc_tok_text_release(&tokenizer->mended);
	mc_tok_text_release(&tokenizer->gap);
	mc_tok_pieces_release(&tokenizer->pieces);
	free(tokenizer);
}

static uint32_t larger(uint32_t a, uint32_t b)
{
	return a > b ? a : b;
}

/* A template may name ids of its own. */
static uint32_t largest_of(const struct mc_ids *ids, uint32_t largest)
{
	for (size_t i = 0; i < ids->count; i++)
		largest = larger(largest, ids->ids[i]);
	return largest;
}

size_t mc_tokenizer_size(const struct mc_tokenizer *tokenizer)
{
	uint32_t largest = larger(mc_tok_bpe_vocab(tokenizer->bpe)->largest_id,
	    mc_tok_added_largest_id(tokenizer->added));

	largest = largest_of(&tokenizer->template.before, largest);
	largest = largest_of(&tokenizer->template.after, largest);
	return (size_t)largest + 1;
}

/* --- encoding --------------------------------------------------------------------------------- */

/* Words of a text that holds no added token any more. */
static bool encode_words(struct mc_tokenizer *tokenizer, const char *text, size_t length,
    bool at_start, struct mc_ids *out, struct mc_error *err)
{
	struct mc_tok_pieces *pieces = &tokenizer->pieces;

	pieces->text.length = 0;
	pieces->at_start = at_start;
	if (!mc_tok_add(&pieces->text, text, length, err) ||
	    !mc_tok_pretokenize(&tokenizer->steps, pieces, err))
		return false;
	for (size_t i = 0; i < pieces->spans.count; i++) {
		struct mc_tok_span span = pieces->spans.items[i];

		if (!mc_tok_bpe_encode(tokenizer->bpe, pieces->text.bytes + span.begin,
			span.end - span.begin, out, err))
			return false;
	}
	return true;
}

/* A gap between added tokens of the raw text. */
static bool encode_gap(struct mc_tokenizer *tokenizer, const char *text, size_t length,
    bool at_start, bool match_special, struct mc_ids *out, struct mc_error *err)
{
	struct mc_tok_cutter cutter = {
	    .added = tokenizer->added, .normalized = true, .match_special = match_special};
	struct mc_tok_cut cut;
	bool more;

	tokenizer->gap.length = 0;
	if (!mc_tok_add(&tokenizer->gap, text, length, err) ||
	    !mc_tok_normalize(&tokenizer->normalizers, &tokenizer->gap, err))
		return false;
	cutter.text = tokenizer->gap.bytes;
	cutter.length = tokenizer->gap.length;
	for (;;) {
		if (!mc_tok_cutter_next(&cutter, &more, &cut, err))
			return false;
		if (!more)
			return true;
		if (!(cut.is_token
			    ? mc_tok_add_id(out, cut.id, err)
			    : encode_words(tokenizer, cutter.text + cut.begin, cut.end - cut.begin,
				  at_start && cut.begin == 0, out, err)))
			return false;
	}
}

static bool encode_text(struct mc_tokenizer *tokenizer, const char *text, size_t length,
    bool match_special, struct mc_ids *out, struct mc_error *err)
{
	struct mc_tok_cutter cutter = {.added = tokenizer->added,
	    .match_special = match_special,
	    .text = text,
	    .length = length};
	struct mc_tok_cut cut;
	bool more;

	for (;;) {
		if (!mc_tok_cutter_next(&cutter, &more, &cut, err))
			return false;
		if (!more)
			return true;
		if (!(cut.is_token ? mc_tok_add_id(out, cut.id, err)
				   : encode_gap(tokenizer, text + cut.begin, cut.end - cut.begin,
					 cut.begin == 0, match_special, out, err)))
			return false;
	}
}

static const struct mc_tok_frame *frame_of(
    const struct mc_tokenizer *tokenizer, enum mc_add_special add_special)
{
	switch (add_special) {
	case MC_ADD_SPECIAL_NO:
		return NULL;
	case MC_ADD_SPECIAL_YES:
		return &tokenizer->template;
	case MC_ADD_SPECIAL_AUTO:
		break;
	}
	return tokenizer->flags_decide ? &tokenizer->flags : &tokenizer->template;
}

static bool add_all(struct mc_ids *out, const struct mc_ids *more, struct mc_error *err)
{
	for (size_t i = 0; i < more->count; i++) {
		if (!mc_tok_add_id(out, more->ids[i], err))
			return false;
	}
	return true;
}

bool mc_tokenizer_encode(struct mc_tokenizer *tokenizer, const char *text, size_t length,
    enum mc_add_special add_special, bool match_special, struct mc_ids *out, struct mc_error *err)
{
	const struct mc_tok_frame *frame = frame_of(tokenizer, add_special);
	size_t before = out->count;
	bool ok = true;

	if (length > LONGEST_TEXT)
		return mc_fail(err, MC_INVALID, "", "a text has %zu bytes, needed at most %zu",
		    length, LONGEST_TEXT);
	if (mc_utf8_valid(text, length) < length) {
		tokenizer->mended.length = 0;
		ok = mc_utf8_mend(text, length, &tokenizer->mended, err);
		text = tokenizer->mended.bytes;
		length = tokenizer->mended.length;
	}
	ok = ok && (!frame || add_all(out, &frame->before, err)) &&
	     encode_text(tokenizer, text, length, match_special, out, err) &&
	     (!frame || add_all(out, &frame->after, err));
	if (!ok)
		out->count = before;
	return ok;
}
