/*
 * tokenizer_pretokenize.c - from a normalized text to words: Split, Digits, ByteLevel, Metaspace
 *
 * The components become a flat list of three kinds of steps: split the pieces by a pattern, rewrite
 * their spaces and beginnings, write their bytes in the byte-level alphabet.
 */
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

/* What ByteLevel splits by when use_regex is true: GPT-2's expression. */
static const char gpt2[] =
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

enum behavior { REMOVED, ISOLATED, MERGED_WITH_PREVIOUS, MERGED_WITH_NEXT, CONTIGUOUS };

static const char *const behavior_names[] = {
    [REMOVED] = "Removed",
    [ISOLATED] = "Isolated",
    [MERGED_WITH_PREVIOUS] = "MergedWithPrevious",
    [MERGED_WITH_NEXT] = "MergedWithNext",
    [CONTIGUOUS] = "Contiguous",
};

enum scheme { NEVER, FIRST, ALWAYS };

struct mc_tok_step {
	enum { STEP_SPLIT, STEP_REWRITE, STEP_BYTES } kind;
	struct mc_tok_pattern pattern; /* of SPLIT */
	enum behavior behavior;
	bool invert;
	struct mc_tok_text space; /* of REWRITE: what stands for a space, in front and inside */
	enum scheme scheme;       /* of REWRITE: where it is put in front */
};

/* --- reading ---------------------------------------------------------------------------------- */

static struct mc_tok_step *add_step(struct mc_tok_steps *steps, struct mc_error *err)
{
	if (!mc_grow((void **)&steps->items, &steps->capacity, steps->count + 1,
		sizeof(*steps->items), "pre-tokenizers", err))
		return NULL;
	steps->items[steps->count] = (struct mc_tok_step){0};
	return &steps->items[steps->count++];
}

static bool read_behavior(
    const struct mc_tok_node *node, enum behavior *ret_behavior, struct mc_error *err)
{
	const char *name;

	if (!mc_tok_string(node, "behavior", &name, NULL, err))
		return false;
	for (size_t i = 0; i < sizeof(behavior_names) / sizeof(behavior_names[0]); i++) {
		if (strcmp(name, behavior_names[i]) == 0) {
			*ret_behavior = (enum behavior)i;
			return true;
		}
	}
	return mc_fail(err, MC_UNSUPPORTED, node->where,
	    "%s %s: the behavior \"%.64s\" is not known", node->role, node->type, name);
}

static bool read_split(
    struct mc_tok_steps *steps, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {"pattern", "behavior", "invert", NULL};
	struct mc_tok_step *step = add_step(steps, err);

	return step && mc_tok_known_fields(node, known, err) &&
	       read_behavior(node, &step->behavior, err) &&
	       mc_tok_bool(node, "invert", MC_TOK_REQUIRED, &step->invert, err) &&
	       mc_tok_pattern_read(&step->pattern, node, err);
}

static bool read_digits(
    struct mc_tok_steps *steps, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {"individual_digits", NULL};
	struct mc_tok_step *step = add_step(steps, err);
	bool each;

	if (!step || !mc_tok_known_fields(node, known, err) ||
	    !mc_tok_bool(node, "individual_digits", MC_TOK_REQUIRED, &each, err))
		return false;
	step->pattern.kind = MC_TOK_PATTERN_NUMERIC;
	step->behavior = each ? ISOLATED : CONTIGUOUS;
	return true;
}

static bool read_byte_level(
    struct mc_tok_steps *steps, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {"add_prefix_space", "trim_offsets", "use_regex", NULL};
	struct mc_tok_step *step;
	bool prefix, regex;

	if (!mc_tok_known_fields(node, known, err) ||
	    !mc_tok_bool(node, "add_prefix_space", MC_TOK_REQUIRED, &prefix, err) ||
	    !mc_tok_bool(node, "use_regex", MC_TOK_TRUE, &regex, err))
		return false;
	if (prefix) {
		step = add_step(steps, err);
		if (!step)
			return false;
		step->kind = STEP_REWRITE;
		step->scheme = ALWAYS;
		if (!mc_tok_add(&step->space, " ", 1, err))
			return false;
	}
	if (regex) {
		step = add_step(steps, err);
		if (!step || !mc_tok_pattern_compile(&step->pattern, gpt2, strlen(gpt2),
				 "pre_tokenizer ByteLevel", node->where, err))
			return false;
		step->behavior = ISOLATED;
	}
	step = add_step(steps, err);
	if (step)
		step->kind = STEP_BYTES;
	return step != NULL;
}

/* Old files have add_prefix_space instead of prepend_scheme. */
static bool read_scheme(
    const struct mc_tok_node *node, enum scheme *ret_scheme, struct mc_error *err)
{
	static const char *const names[] = {
	    [NEVER] = "never", [FIRST] = "first", [ALWAYS] = "always"};
	bool prefix = true;
	const char *name = "always";
	size_t i = 0;

	if (!mc_json_is_null(mc_json_get(node->json, "add_prefix_space")) &&
	    !mc_tok_bool(node, "add_prefix_space", MC_TOK_REQUIRED, &prefix, err))
		return false;
	if (mc_json_get(node->json, "prepend_scheme") &&
	    !mc_tok_string(node, "prepend_scheme", &name, NULL, err))
		return false;
	while (i < 3 && strcmp(name, names[i]) != 0)
		i++;
	if (i == 3)
		return mc_fail(err, MC_UNSUPPORTED, node->where,
		    "pre_tokenizer Metaspace: the prepend_scheme \"%.64s\" is not known", name);
	*ret_scheme = (enum scheme)i;
	if (!prefix && i != NEVER)
		return mc_fail(err, MC_UNSUPPORTED, node->where,
		    "pre_tokenizer Metaspace: add_prefix_space is false, but prepend_scheme is %s, "
		    "needed never",
		    name);
	return true;
}

static bool read_metaspace(
    struct mc_tok_steps *steps, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {
	    "replacement", "add_prefix_space", "prepend_scheme", "split", "str_rep", NULL};
	struct mc_tok_step *step = add_step(steps, err);
	const char *text;
	size_t length;
	bool split = true;

	if (!step || !mc_tok_known_fields(node, known, err) ||
	    !read_scheme(node, &step->scheme, err) ||
	    !mc_tok_string(node, "replacement", &text, &length, err) ||
	    (!mc_json_is_null(mc_json_get(node->json, "split")) &&
		!mc_tok_bool(node, "split", MC_TOK_REQUIRED, &split, err)))
		return false;
	if (length == 0 || mc_utf8_length((unsigned char)text[0]) != length)
		return mc_fail(err, MC_CORRUPT, node->where,
		    "pre_tokenizer Metaspace: \"replacement\" is not one character");
	step->kind = STEP_REWRITE;
	if (!mc_tok_add(&step->space, text, length, err))
		return false;
	if (!split)
		return true;
	step = add_step(steps, err);
	if (!step)
		return false;
	step->behavior = MERGED_WITH_NEXT;
	return mc_tok_add(&step->pattern.string, text, length, err);
}

static bool read_node(
    struct mc_tok_steps *steps, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const of_sequence[] = {"pretokenizers", NULL};
	const struct mc_json *members;
	struct mc_tok_node child;

	if (strcmp(node->type, "Split") == 0)
		return read_split(steps, node, err);
	if (strcmp(node->type, "Digits") == 0)
		return read_digits(steps, node, err);
	if (strcmp(node->type, "ByteLevel") == 0)
		return read_byte_level(steps, node, err);
	if (strcmp(node->type, "Metaspace") == 0)
		return read_metaspace(steps, node, err);
	if (strcmp(node->type, "Sequence") != 0)
		return mc_tok_unsupported_type(node, err);
	members = mc_tok_array(node, "pretokenizers", err);
	if (!members || !mc_tok_known_fields(node, of_sequence, err))
		return false;
	for (size_t i = 0; i < mc_json_size(members); i++) {
		if (!mc_tok_node_child(&child, node, "pretokenizers", i, err) ||
		    !read_node(steps, &child, err))
			return false;
	}
	return true;
}

bool mc_tok_steps_read(struct mc_tok_steps *steps, const struct mc_json *json, struct mc_error *err)
{
	struct mc_tok_node node;

	return mc_json_is_null(json) || (mc_tok_node_read(&node, json, "pre_tokenizer",
					     "tokenizer.json /pre_tokenizer", err) &&
					    read_node(steps, &node, err));
}

void mc_tok_steps_release(struct mc_tok_steps *steps)
{
	for (size_t i = 0; i < steps->count; i++) {
		mc_tok_pattern_release(&steps->items[i].pattern);
		mc_tok_text_release(&steps->items[i].space);
	}
	free(steps->items);
	*steps = (struct mc_tok_steps){0};
}

void mc_tok_pieces_release(struct mc_tok_pieces *pieces)
{
	mc_tok_text_release(&pieces->text);
	mc_tok_text_release(&pieces->spare_text);
	free(pieces->spans.items);
	free(pieces->spare_spans.items);
	*pieces = (struct mc_tok_pieces){0};
}

/* --- splitting -------------------------------------------------------------------------------- */

/* Pieces without a character are dropped. */
static bool add_span(struct mc_tok_spans *spans, size_t begin, size_t end, struct mc_error *err)
{
	if (begin == end)
		return true;
	if (spans->count == spans->capacity &&
	    !mc_grow((void **)&spans->items, &spans->capacity, spans->count + 1,
		sizeof(*spans->items), "pieces of a text", err))
		return false;
	spans->items[spans->count++] = (struct mc_tok_span){
	    .begin = (uint32_t)begin, .end = (uint32_t)end};
	return true;
}

/* Matches and gaps of one piece come in order; the last is held back, as the next may join it. */
struct joiner {
	const struct mc_tok_step *step;
	struct mc_tok_spans *out;
	size_t base; /* of the piece in the text */
	bool holds, last_matched;
	size_t begin, end; /* of what is held */
};

static bool join(struct joiner *j, size_t begin, size_t end, bool matched, struct mc_error *err)
{
	bool last = j->last_matched, joins = false;

	matched = matched != j->step->invert;
	j->last_matched = matched;
	switch (j->step->behavior) {
	case REMOVED:
		return matched || add_span(j->out, j->base + begin, j->base + end, err);
	case ISOLATED:
		return add_span(j->out, j->base + begin, j->base + end, err);
	case CONTIGUOUS:
		joins = matched == last;
		break;
	case MERGED_WITH_PREVIOUS:
		joins = matched && !last;
		break;
	case MERGED_WITH_NEXT:
		joins = !matched && last;
		break;
	}
	if (j->holds && joins) {
		j->end = end;
		return true;
	}
	if (j->holds && !add_span(j->out, j->base + j->begin, j->base + j->end, err))
		return false;
	j->holds = true;
	j->begin = begin;
	j->end = end;
	return true;
}

static bool split_piece(const struct mc_tok_step *step, const char *text, struct mc_tok_span piece,
    struct mc_tok_spans *out, struct mc_error *err)
{
	struct joiner j = {.step = step, .out = out, .base = piece.begin};
	struct mc_tok_finder finder;
	size_t done = 0, begin, end, length = piece.end - piece.begin;
	bool found;

	mc_tok_finder_init(&finder, &step->pattern, text + piece.begin, length);
	for (;;) {
		if (!mc_tok_finder_next(&finder, &found, &begin, &end, err))
			return false;
		if (!found)
			break;
		if ((begin > done && !join(&j, done, begin, false, err)) ||
		    !join(&j, begin, end, true, err))
			return false;
		done = end;
	}
	if (done < length && !join(&j, done, length, false, err))
		return false;
	return !j.holds || add_span(out, j.base + j.begin, j.base + j.end, err);
}

static bool split_pieces(
    const struct mc_tok_step *step, struct mc_tok_pieces *pieces, struct mc_error *err)
{
	struct mc_tok_spans before = pieces->spans;
	struct mc_tok_spans *out = &pieces->spare_spans;

	out->count = 0;
	for (size_t i = 0; i < before.count; i++) {
		if (!split_piece(step, pieces->text.bytes, before.items[i], out, err))
			return false;
	}
	pieces->at_start = pieces->at_start && before.count > 0 && out->count > 0 &&
			   out->items[0].begin == before.items[0].begin;
	pieces->spans = *out;
	pieces->spare_spans = before;
	return true;
}

/* --- rewriting -------------------------------------------------------------------------------- */

static bool starts_with(const char *text, size_t length, const struct mc_tok_text *with)
{
	return length >= with->length && memcmp(text, with->bytes, with->length) == 0;
}

static bool rewrite_piece(const struct mc_tok_step *step, const char *text, size_t length,
    bool prepend, struct mc_tok_text *out, struct mc_error *err)
{
	const struct mc_tok_text *space = &step->space;

	if (prepend && text[0] != ' ' && !starts_with(text, length, space) &&
	    !mc_tok_add(out, space->bytes, space->length, err))
		return false;
	while (length > 0) {
		const char *at = memchr(text, ' ', length);
		size_t plain = at ? (size_t)(at - text) : length;

		if (!mc_tok_add(out, text, plain, err) ||
		    (at && !mc_tok_add(out, space->bytes, space->length, err)))
			return false;
		text += plain + (at ? 1 : 0);
		length -= plain + (at ? 1 : 0);
	}
	return true;
}

/* Printable bytes of Latin-1 stand for themselves, the other 68 for U+0100 and on, in order. */
static void make_byte_alphabet(char table[256][2], unsigned char lengths[256])
{
	uint32_t next = 0x100;
	char text[4];

	for (uint32_t byte = 0; byte < 256; byte++) {
		bool plain = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
			     byte >= 0xAE;

		lengths[byte] = (unsigned char)mc_utf8_encode(plain ? byte : next, text);
		memcpy(table[byte], text, 2);
		next += !plain;
	}
}

static bool write_bytes(struct mc_tok_pieces *pieces, struct mc_tok_text *out, struct mc_error *err)
{
	char table[256][2];
	unsigned char lengths[256];

	make_byte_alphabet(table, lengths);
	for (size_t i = 0; i < pieces->spans.count; i++) {
		struct mc_tok_span *span = &pieces->spans.items[i];
		size_t begin = out->length;

		if (!mc_tok_reserve(out, (size_t)(span->end - span->begin) * 2, err))
			return false;
		char *to = out->bytes + begin;
		for (size_t at = span->begin; at < span->end; at++) {
			unsigned char byte = (unsigned char)pieces->text.bytes[at];

			to[0] = table[byte][0];
			if (lengths[byte] == 2)
				to[1] = table[byte][1];
			to += lengths[byte];
		}
		out->length = (size_t)(to - out->bytes);
		*span = (struct mc_tok_span){(uint32_t)begin, (uint32_t)out->length};
	}
	return true;
}

static bool rewrite_pieces(
    const struct mc_tok_step *step, struct mc_tok_pieces *pieces, struct mc_error *err)
{
	struct mc_tok_text before = pieces->text;
	struct mc_tok_text *out = &pieces->spare_text;

	out->length = 0;
	if (step->kind == STEP_BYTES && !write_bytes(pieces, out, err))
		return false;
	for (size_t i = 0; step->kind == STEP_REWRITE && i < pieces->spans.count; i++) {
		struct mc_tok_span *span = &pieces->spans.items[i];
		bool first = i == 0 && pieces->at_start;
		size_t begin = out->length;

		if (!rewrite_piece(step, before.bytes + span->begin, span->end - span->begin,
			step->scheme == ALWAYS || (step->scheme == FIRST && first), out, err))
			return false;
		*span = (struct mc_tok_span){(uint32_t)begin, (uint32_t)out->length};
	}
	pieces->text = *out;
	pieces->spare_text = before;
	return true;
}

bool mc_tok_pretokenize(
    const struct mc_tok_steps *steps, struct mc_tok_pieces *pieces, struct mc_error *err)
{
	pieces->spans.count = 0;
	if (!add_span(&pieces->spans, 0, pieces->text.length, err))
		return false;
	for (size_t i = 0; i < steps->count; i++) {
		const struct mc_tok_step *step = &steps->items[i];

		if (!(step->kind == STEP_SPLIT ? split_pieces : rewrite_pieces)(step, pieces, err))
			return false;
	}
	return true;
}
