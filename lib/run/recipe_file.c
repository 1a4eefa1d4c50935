/*
 * recipe_file.c - a recipe as the file that lies with the checkpoint it made
 */
#include "moecal/recipe.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

/* Fields as they are written: no null, no group, no state of a run. */
static struct mc_json *written_fields(const struct mc_json *fields, struct mc_error *err)
{
	struct mc_json *out = mc_json_new_object();
	struct mc_json_iter field = mc_json_iter(fields);
	bool ok = out != NULL;

	while (ok && mc_json_next(&field)) {
		size_t length = strlen(field.key);
		if (mc_json_is_null(field.value) || strcmp(field.key, "group") == 0 ||
		    (length > 0 && field.key[length - 1] == '_'))
			continue;
		ok = mc_json_set(out, field.key, mc_json_copy(field.value, err), err);
	}
	if (ok)
		return out;
	mc_json_free(out);
	return NULL;
}

/* The group's object in the stage, made when it is not there; a class that it has already goes to a
 * group of its own: in one group it would replace the other. */
static struct mc_json *group_for(
    struct mc_json *stage, const char *group, const char *class_name, struct mc_error *err)
{
	for (size_t i = 0;; i++) {
		char *key = i == 0 ? mc_format(err, "%s_modifiers", group)
				   : mc_format(err, "%s_%zu_modifiers", group, i);
		if (key == NULL)
			return NULL;
		const struct mc_json *have = mc_json_get(stage, key);
		if (have == NULL && !mc_json_set(stage, key, mc_json_new_object(), err)) {
			free(key);
			return NULL;
		}
		have = mc_json_get(stage, key);
		free(key);
		if (mc_json_get(have, class_name) == NULL)
			return (struct mc_json *)(uintptr_t)have;
	}
}

static bool add_modifier(
    struct mc_json *stage, const struct mc_json *modifier, struct mc_error *err)
{
	const char *class_name;
	const struct mc_json *fields = mc_json_member(modifier, 0, &class_name),
			     *group = mc_json_get(fields, "group");
	bool named = group != NULL && mc_json_type(group) == MC_JSON_STRING &&
		     mc_json_string(group, NULL)[0] != '\0';
	struct mc_json *into = group_for(
	    stage, named ? mc_json_string(group, NULL) : "default", class_name, err);

	return into != NULL && mc_json_set(into, class_name, written_fields(fields, err), err);
}

static struct mc_json *stage_json(const struct mc_recipe *recipe, struct mc_error *err)
{
	struct mc_json *stage = mc_json_new_object();
	bool list = mc_json_type(recipe->json) == MC_JSON_ARRAY, ok = stage != NULL;

	for (size_t i = 0; ok && list && i < mc_json_size(recipe->json); i++)
		ok = add_modifier(stage, mc_json_at(recipe->json, i), err);
	if (ok && !list)
		ok = add_modifier(stage, recipe->json, err);
	if (ok)
		return stage;
	mc_json_free(stage);
	return NULL;
}

/* Members of `before`; the one called `key` as key_0. */
static bool keep_before(struct mc_json *root, const struct mc_json *before, const char *key,
    bool *ret_clash, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(before);
	bool ok = true;

	*ret_clash = false;
	while (ok && mc_json_next(&member)) {
		bool same = strcmp(member.key, key) == 0;
		char *name = same ? mc_format(err, "%s_0", key) : mc_strdup(member.key, err);
		ok = name != NULL && mc_json_set(root, name, mc_json_copy(member.value, err), err);
		*ret_clash |= same;
		free(name);
	}
	return ok;
}

struct mc_json *mc_recipe_file(
    const struct mc_recipe *recipe, const struct mc_json *before, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();
	char *key = mc_format(err, "%s_stage", recipe->stage != NULL ? recipe->stage : "default");
	bool clash = false,
	     ok = root != NULL && key != NULL && keep_before(root, before, key, &clash, err);

	if (ok && clash) {
		char *numbered = mc_format(err, "%s_1", key);
		free(key);
		key = numbered;
	}
	ok = ok && key != NULL && mc_json_set(root, key, stage_json(recipe, err), err);
	free(key);
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}
