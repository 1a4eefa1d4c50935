/*
 * tokenizer_normalize.c - normalizers: the four Unicode forms, Prepend, Replace
 *
 * The forms come from utf8proc's tables, but the marks are put in order here: the library does it
 * in a time that grows with the square of their number, and texts are not always kind.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

enum kind { FORM, PREPEND, REPLACE };

struct mc_tok_normalizer {
	enum kind kind;
	int form;                      /* of FORM: options of utf8proc */
	struct mc_tok_pattern pattern; /* of REPLACE */
	struct mc_tok_text content;    /* of PREPEND and REPLACE */
};

static const struct {
	const char *type;
	int form;
} forms[] = {
    {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

/* --- reading ---------------------------------------------------------------------------------- */

static bool read_content(struct mc_tok_normalizer *item, const struct mc_tok_node *node,
    const char *key, struct mc_error *err)
{
	const char *text;
	size_t length;

	return mc_tok_string(node, key, &text, &length, err) &&
	       mc_tok_add(&item->content, text, length, err);
}

static bool read_item(
    struct mc_tok_normalizer *item, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const nothing[] = {NULL};
	static const char *const of_prepend[] = {"prepend", NULL};
	static const char *const of_replace[] = {"pattern", "content", NULL};

	for (size_t i = 0; i < sizeof(forms) / sizeof(forms[0]); i++) {
		if (strcmp(node->type, forms[i].type) == 0) {
			item->kind = FORM;
			item->form = forms[i].form;
			return mc_tok_known_fields(node, nothing, err);
		}
	}
	if (strcmp(node->type, "Prepend") == 0) {
		item->kind = PREPEND;
		return mc_tok_known_fields(node, of_prepend, err) &&
		       read_content(item, node, "prepend", err);
	}
	if (strcmp(node->type, "Replace") == 0) {
		item->kind = REPLACE;
		return mc_tok_known_fields(node, of_replace, err) &&
		       mc_tok_pattern_read(&item->pattern, node, err) &&
		       read_content(item, node, "content", err);
	}
	return mc_tok_unsupported_type(node, err);
}

static bool read_node(
    struct mc_tok_normalizers *list, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const of_sequence[] = {"normalizers", NULL};
	const struct mc_json *members;
	struct mc_tok_node child;

	if (strcmp(node->type, "Sequence") != 0)
		return mc_grow((void **)&list->items, &list->capacity, list->count + 1,
			   sizeof(*list->items), "normalizers", err) &&
		       read_item(&list->items[list->count++], node, err);
	members = mc_tok_array(node, "normalizers", err);
	if (!members || !mc_tok_known_fields(node, of_sequence, err))
		return false;
	for (size_t i = 0; i < mc_json_size(members); i++) {
		if (!mc_tok_node_child(&child, node, "normalizers", i, err) ||
		    !read_node(list, &child, err))
			return false;
	}
	return true;
}

bool mc_tok_normalizers_read(
    struct mc_tok_normalizers *list, const struct mc_json *json, struct mc_error *err)
{
	struct mc_tok_node node;

	return mc_json_is_null(json) ||
	       (mc_tok_node_read(&node, json, "normalizer", "tokenizer.json /normalizer", err) &&
		   read_node(list, &node, err));
}

void mc_tok_normalizers_release(struct mc_tok_normalizers *list)
{
	for (size_t i = 0; i < list->count; i++) {
		mc_tok_pattern_release(&list->items[i].pattern);
		mc_tok_text_release(&list->items[i].content);
	}
	free(list->items);
	free(list->codes);
	mc_tok_text_release(&list->spare);
	*list = (struct mc_tok_normalizers){0};
}

/* --- Unicode forms ---------------------------------------------------------------------------- */

static unsigned class_of(int32_t code)
{
	return (unsigned)utf8proc_get_property(code)->combining_class;
}

/* Marks by their class, those of one class in the order of the text. */
static void sort_marks(int32_t *marks, size_t count, int32_t *spare)
{
	size_t begin[257] = {0};
	bool sorted = true;

	for (size_t i = 0; i < count; i++) {
		unsigned c = class_of(marks[i]) & 0xFF;

		sorted = sorted && (i == 0 || (class_of(marks[i - 1]) & 0xFF) <= c);
		begin[c + 1]++;
	}
	if (sorted)
		return;
	for (size_t c = 0; c < 256; c++)
		begin[c + 1] += begin[c];
	for (size_t i = 0; i < count; i++)
		spare[begin[class_of(marks[i]) & 0xFF]++] = marks[i];
	memcpy(marks, spare, count * sizeof(*marks));
}

/* Canonical order; `spare` has as much room as codes. */
static void order_marks(int32_t *codes, size_t count, int32_t *spare)
{
	size_t i = 0, first;

	while (i < count) {
		if (class_of(codes[i]) == 0) {
			i++;
			continue;
		}
		for (first = i; i < count && class_of(codes[i]) != 0; i++)
			;
		if (i - first > 1)
			sort_marks(codes + first, i - first, spare);
	}
}

/* Decomposed code points of a text, in list->codes, with as much room behind them. */
static bool decompose(struct mc_tok_normalizers *list, const char *text, size_t length, int form,
    size_t *ret_count, struct mc_error *err)
{
	size_t count = 0, bytes;

	for (size_t at = 0; at < length; at += bytes) {
		uint32_t code = mc_utf8_decode(text + at, &bytes);
		int boundclass = 0;

		/* No code point becomes more than 18. */
		if (!mc_grow((void **)&list->codes, &list->codes_capacity, 2 * (count + 32),
			sizeof(*list->codes), "a text to normalize", err))
			return false;
		utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)code,
		    list->codes + count, 32, (utf8proc_option_t)form, &boundclass);
		if (n < 0 || n > 32)
			return mc_fail(err, MC_INTERNAL, "", "U+%04X cannot be decomposed", code);
		count += (size_t)n;
	}
	*ret_count = count;
	return true;
}

static bool add_form(struct mc_tok_normalizers *list, const char *text, size_t length, int form,
    struct mc_tok_text *out, struct mc_error *err)
{
	size_t count = 0;
	utf8proc_ssize_t composed;

	if (!decompose(list, text, length, form, &count, err))
		return false;
	order_marks(list->codes, count, list->codes + list->codes_capacity / 2);
	composed = utf8proc_normalize_utf32(
	    list->codes, (utf8proc_ssize_t)count, (utf8proc_option_t)form);
	if (composed < 0)
		return mc_fail(err, MC_INTERNAL, "", "a text cannot be normalized: %s",
		    utf8proc_errmsg(composed));
	if (!mc_tok_reserve(out, (size_t)composed * 4, err))
		return false;
	for (utf8proc_ssize_t i = 0; i < composed; i++)
		out->length += mc_utf8_encode((uint32_t)list->codes[i], out->bytes + out->length);
	return true;
}

static size_t ascii_run(const char *text, size_t length)
{
	size_t n = 0;
	uint64_t word;

	for (; n + 8 <= length; n += 8) {
		memcpy(&word, text + n, 8);
		if (word & UINT64_C(0x8080808080808080))
			break;
	}
	while (n < length && (unsigned char)text[n] < 0x80)
		n++;
	return n;
}

/*
 * ASCII stays as it is, and nothing joins with an ASCII character that follows it: so the text is
 * cut there, and only the rest, with the one ASCII character before it, is worked on.
 */
static bool apply_form(struct mc_tok_normalizers *list, int form, const struct mc_tok_text *in,
    struct mc_tok_text *out, struct mc_error *err)
{
	size_t at = 0;

	while (at < in->length) {
		size_t plain = ascii_run(in->bytes + at, in->length - at), end;

		if (at + plain < in->length && plain > 0)
			plain--;
		if (!mc_tok_add(out, in->bytes + at, plain, err))
			return false;
		at += plain;
		if (at == in->length)
			break;
		for (end = at + 1; end < in->length && (unsigned char)in->bytes[end] >= 0x80;)
			end++;
		if (!add_form(list, in->bytes + at, end - at, form, out, err))
			return false;
		at = end;
	}
	return true;
}

/* --- all -------------------------------------------------------------------------------------- */

static bool apply_replace(const struct mc_tok_normalizer *item, const struct mc_tok_text *in,
    struct mc_tok_text *out, struct mc_error *err)
{
	struct mc_tok_finder finder;
	size_t done = 0, begin, end;
	bool found;

	mc_tok_finder_init(&finder, &item->pattern, in->bytes, in->length);
	for (;;) {
		if (!mc_tok_finder_next(&finder, &found, &begin, &end, err))
			return false;
		if (!found)
			return mc_tok_add(out, in->bytes + done, in->length - done, err);
		if (!mc_tok_add(out, in->bytes + done, begin - done, err) ||
		    !mc_tok_add(out, item->content.bytes, item->content.length, err))
			return false;
		done = end;
	}
}

bool mc_tok_normalize(
    struct mc_tok_normalizers *list, struct mc_tok_text *text, struct mc_error *err)
{
	for (size_t i = 0; i < list->count && text->length > 0; i++) {
		const struct mc_tok_normalizer *item = &list->items[i];
		struct mc_tok_text before = *text;
		bool ok = true;

		list->spare.length = 0;
		switch (item->kind) {
		case FORM:
			if (ascii_run(text->bytes, text->length) == text->length)
				continue;
			ok = apply_form(list, item->form, text, &list->spare, err);
			break;
		case PREPEND:
			ok = mc_tok_add(
				 &list->spare, item->content.bytes, item->content.length, err) &&
			     mc_tok_add(&list->spare, text->bytes, text->length, err);
			break;
		case REPLACE:
			ok = apply_replace(item, text, &list->spare, err);
			break;
		}
		if (!ok)
			return false;
		*text = list->spare;
		list->spare = before;
	}
	return true;
}
