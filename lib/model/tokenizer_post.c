/*
 * tokenizer_post.c - ids in front of and behind a text: by template, or by the flags of
 * tokenizer_config.json
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer_parts.h"

void mc_tok_frame_release(struct mc_tok_frame *frame)
{
	mc_ids_release(&frame->before);
	mc_ids_release(&frame->after);
}

/* --- templates -------------------------------------------------------------------------------- */

/* Appends the ids of a special token that the template names. */
static bool add_special(const struct mc_tok_node *node, const struct mc_json *piece,
    struct mc_ids *ids, struct mc_error *err)
{
	const struct mc_json *name = mc_json_get(mc_json_get(piece, "SpecialToken"), "id");
	const struct mc_json *list;
	const char *text;
	uint32_t id;

	if (mc_json_type(name) != MC_JSON_STRING)
		return mc_fail(err, MC_CORRUPT, node->where,
		    "post_processor TemplateProcessing: a special token has no id");
	text = mc_json_string(name, NULL);
	list = mc_json_get(mc_json_get(mc_json_get(node->json, "special_tokens"), text), "ids");
	if (mc_json_type(list) != MC_JSON_ARRAY)
		return mc_fail(err, MC_CORRUPT, node->where,
		    "post_processor TemplateProcessing: special_tokens has no ids of \"%.64s\"",
		    text);
	for (size_t i = 0; i < mc_json_size(list); i++) {
		if (!mc_tok_id(mc_json_at(list, i), node->where, text, &id, err) ||
		    !mc_tok_add_id(ids, id, err))
			return false;
	}
	return true;
}

/* What stands in front of $A and behind it. */
static bool read_single(const struct mc_tok_node *node, struct mc_ids *before, struct mc_ids *after,
    struct mc_error *err)
{
	const struct mc_json *single = mc_tok_array(node, "single", err);
	bool seen = false;

	for (size_t i = 0; single && i < mc_json_size(single); i++) {
		const struct mc_json *piece = mc_json_at(single, i);
		const struct mc_json *sequence = mc_json_get(piece, "Sequence");
		const struct mc_json *name = mc_json_get(sequence, "id");

		if (!sequence) {
			if (!add_special(node, piece, seen ? after : before, err))
				return false;
			continue;
		}
		if (seen || mc_json_type(name) != MC_JSON_STRING ||
		    strcmp(mc_json_string(name, NULL), "A") != 0)
			return mc_fail(err, MC_UNSUPPORTED, node->where,
			    "post_processor TemplateProcessing: \"single\" does not hold the "
			    "sequence A exactly once");
		seen = true;
	}
	if (single && !seen)
		return mc_fail(err, MC_UNSUPPORTED, node->where,
		    "post_processor TemplateProcessing: \"single\" lacks the sequence A");
	return single != NULL;
}

/* Puts what a template adds around what the ones before it have added. */
static bool read_template(
    struct mc_tok_frame *frame, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const known[] = {"single", "pair", "special_tokens", NULL};
	struct mc_ids before = {0}, old = frame->before;
	bool ok = mc_tok_known_fields(node, known, err) &&
		  read_single(node, &before, &frame->after, err);

	for (size_t i = 0; ok && i < old.count; i++)
		ok = mc_tok_add_id(&before, old.ids[i], err);
	mc_ids_release(&old);
	frame->before = before;
	return ok;
}

static bool read_node(
    struct mc_tok_frame *frame, const struct mc_tok_node *node, struct mc_error *err)
{
	static const char *const of_sequence[] = {"processors", NULL};
	static const char *const of_bytes[] = {
	    "add_prefix_space", "trim_offsets", "use_regex", NULL};
	const struct mc_json *members;
	struct mc_tok_node child;

	if (strcmp(node->type, "ByteLevel") == 0)
		return mc_tok_known_fields(node, of_bytes, err); /* moves offsets, no ids */
	if (strcmp(node->type, "TemplateProcessing") == 0)
		return read_template(frame, node, err);
	if (strcmp(node->type, "Sequence") != 0)
		return mc_tok_unsupported_type(node, err);
	members = mc_tok_array(node, "processors", err);
	if (!members || !mc_tok_known_fields(node, of_sequence, err))
		return false;
	for (size_t i = 0; i < mc_json_size(members); i++) {
		if (!mc_tok_node_child(&child, node, "processors", i, err) ||
		    !read_node(frame, &child, err))
			return false;
	}
	return true;
}

bool mc_tok_frame_read(struct mc_tok_frame *frame, const struct mc_json *json, struct mc_error *err)
{
	struct mc_tok_node node;

	return mc_json_is_null(json) || (mc_tok_node_read(&node, json, "post_processor",
					     "tokenizer.json /post_processor", err) &&
					    read_node(frame, &node, err));
}

/* --- flags ------------------------------------------------------------------------------------ */

/* add_bos_token and friends; null counts as absent. */
static bool read_flag(const struct mc_json *config, const char *key, bool *ret_present,
    bool *ret_value, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(config, key);

	*ret_present = !mc_json_is_null(value);
	*ret_value = false;
	if (!*ret_present)
		return true;
	if (mc_json_type(value) != MC_JSON_BOOL)
		return mc_fail(err, MC_CORRUPT, "tokenizer_config.json",
		    "%s is a %s, needed true or false", key,
		    mc_json_type_name(mc_json_type(value)));
	*ret_value = mc_json_bool(value);
	return true;
}

/* "bos_token": a text, or an object with "content". */
static bool add_named(struct mc_ids *ids, const struct mc_json *config, const char *key,
    const struct mc_tok_added *added, const struct mc_tok_vocab *vocab, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(config, key);
	const char *text;
	size_t length;
	uint32_t id;

	if (mc_json_type(value) == MC_JSON_OBJECT)
		value = mc_json_get(value, "content");
	if (mc_json_type(value) != MC_JSON_STRING)
		return mc_fail(err, MC_CORRUPT, "tokenizer_config.json",
		    "%s is to be added to every text, but it is not given", key);
	text = mc_json_string(value, &length);
	if (!mc_tok_added_find(added, vocab, text, length, &id))
		return mc_fail(err, MC_CORRUPT, "tokenizer_config.json",
		    "%s is \"%.64s\", which tokenizer.json does not have", key, text);
	return mc_tok_add_id(ids, id, err);
}

bool mc_tok_frame_of_flags(struct mc_tok_frame *frame, const struct mc_json *config,
    const struct mc_tok_added *added, const struct mc_tok_vocab *vocab, bool *ret_decides,
    struct mc_error *err)
{
	const struct mc_json *name = mc_json_get(config, "tokenizer_class");
	bool bos, eos, has_eos;

	*ret_decides = false;
	if (mc_json_type(name) != MC_JSON_STRING ||
	    strncmp(mc_json_string(name, NULL), "Llama", 5) != 0)
		return true;
	if (!read_flag(config, "add_bos_token", ret_decides, &bos, err) ||
	    !read_flag(config, "add_eos_token", &has_eos, &eos, err))
		return false;
	return !*ret_decides ||
	       ((!bos || add_named(&frame->before, config, "bos_token", added, vocab, err)) &&
		   (!eos || add_named(&frame->after, config, "eos_token", added, vocab, err)));
}
