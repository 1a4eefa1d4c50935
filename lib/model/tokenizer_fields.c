/*
 * tokenizer_fields.c - read components of tokenizer.json; nothing unknown passes in silence
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "tokenizer_parts.h"

/* --- bytes and ids ---------------------------------------------------------------------------- */

bool mc_tok_reserve(struct mc_tok_text *text, size_t more, struct mc_error *err)
{
	if (more > UINT32_MAX || text->length + more > UINT32_MAX)
		return mc_fail(
		    err, MC_INVALID, "", "a text grows past 4 GiB while it is normalized");
	return mc_grow((void **)&text->bytes, &text->capacity, text->length + more, 1,
	    "a text to tokenize", err);
}

bool mc_tok_add(struct mc_tok_text *text, const char *bytes, size_t length, struct mc_error *err)
{
	if (!mc_tok_reserve(text, length, err))
		return false;
	if (length > 0)
		memcpy(text->bytes + text->length, bytes, length);
	text->length += length;
	return true;
}

void mc_tok_text_release(struct mc_tok_text *text)
{
	free(text->bytes);
	*text = (struct mc_tok_text){0};
}

bool mc_tok_add_id(struct mc_ids *ids, uint32_t id, struct mc_error *err)
{
	if (ids->count == ids->capacity && !mc_grow((void **)&ids->ids, &ids->capacity,
					       ids->count + 1, sizeof(*ids->ids), "token ids", err))
		return false;
	ids->ids[ids->count++] = id;
	return true;
}

/* --- components ------------------------------------------------------------------------------- */

bool mc_tok_node_read(struct mc_tok_node *node, const struct mc_json *json, const char *role,
    const char *where, struct mc_error *err)
{
	const struct mc_json *type = mc_json_get(json, "type");

	*node = (struct mc_tok_node){.json = json, .role = role, .type = ""};
	snprintf(node->where, sizeof(node->where), "%s", where);
	if (mc_json_type(json) != MC_JSON_OBJECT)
		return mc_fail(err, MC_CORRUPT, where, "the %s is a %s, needed an object", role,
		    mc_json_type_name(mc_json_type(json)));
	if (mc_json_type(type) != MC_JSON_STRING)
		return mc_fail(
		    err, MC_CORRUPT, where, "the %s has no \"type\" that is a text", role);
	node->type = mc_json_string(type, NULL);
	return true;
}

const struct mc_json *mc_tok_array(
    const struct mc_tok_node *node, const char *key, struct mc_error *err)
{
	const struct mc_json *array = mc_json_get(node->json, key);

	if (mc_json_type(array) == MC_JSON_ARRAY)
		return array;
	mc_fail(err, MC_CORRUPT, node->where, "%s %s: \"%s\" is a %s, needed an array", node->role,
	    node->type, key, mc_json_type_name(mc_json_type(array)));
	return NULL;
}

bool mc_tok_node_child(struct mc_tok_node *child, const struct mc_tok_node *parent, const char *key,
    size_t index, struct mc_error *err)
{
	char where[sizeof(parent->where) + 64];

	snprintf(where, sizeof(where), "%s/%s/%zu", parent->where, key, index);
	return mc_tok_node_read(
	    child, mc_json_at(mc_json_get(parent->json, key), index), parent->role, where, err);
}

bool mc_tok_known_fields(
    const struct mc_tok_node *node, const char *const *known, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(node->json);

	while (mc_json_next(&member)) {
		size_t i = 0;

		while (known[i] && strcmp(known[i], member.key) != 0)
			i++;
		if (!known[i] && strcmp(member.key, "type") != 0)
			return mc_fail(err, MC_UNSUPPORTED, node->where,
			    "%s %s: the field \"%.64s\" is not known", node->role, node->type,
			    member.key);
	}
	return true;
}

bool mc_tok_bool(const struct mc_tok_node *node, const char *key, enum mc_tok_absent absent,
    bool *ret, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(node->json, key);

	if (!value && absent != MC_TOK_REQUIRED) {
		*ret = absent == MC_TOK_TRUE;
		return true;
	}
	if (mc_json_type(value) != MC_JSON_BOOL)
		return mc_fail(err, MC_CORRUPT, node->where,
		    "%s %s: \"%s\" is %s%s, needed true or false", node->role, node->type, key,
		    value ? "a " : "absent", value ? mc_json_type_name(mc_json_type(value)) : "");
	*ret = mc_json_bool(value);
	return true;
}

bool mc_tok_string(const struct mc_tok_node *node, const char *key, const char **ret_text,
    size_t *ret_length, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(node->json, key);

	if (mc_json_type(value) != MC_JSON_STRING)
		return mc_fail(err, MC_CORRUPT, node->where, "%s %s: \"%s\" is %s%s, needed a text",
		    node->role, node->type, key, value ? "a " : "absent",
		    value ? mc_json_type_name(mc_json_type(value)) : "");
	*ret_text = mc_json_string(value, ret_length);
	return true;
}

bool mc_tok_id(const struct mc_json *value, const char *where, const char *what, uint32_t *ret_id,
    struct mc_error *err)
{
	if (mc_json_type(value) != MC_JSON_INTEGER)
		return mc_fail(err, MC_CORRUPT, where,
		    "the id of \"%.64s\" is %s, needed an integer", what,
		    mc_json_type_name(mc_json_type(value)));
	/* The two largest are left free: new ids count on from the largest one. */
	if (mc_json_integer(value) < 0 || mc_json_integer(value) >= INT32_MAX)
		return mc_fail(err, MC_CORRUPT, where,
		    "the id of \"%.64s\" is %" PRId64 ", needed one from 0 to %" PRId32, what,
		    mc_json_integer(value), INT32_MAX - 1);
	*ret_id = (uint32_t)mc_json_integer(value);
	return true;
}

bool mc_tok_unsupported_type(const struct mc_tok_node *node, struct mc_error *err)
{
	return mc_fail(
	    err, MC_UNSUPPORTED, node->where, "%s %.64s is not supported", node->role, node->type);
}
