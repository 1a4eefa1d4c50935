/*
 * scheme_fields.c - reading fields of JSON objects with all complaints at once
 */
#include "scheme_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

struct mc_field mc_field_get(const struct mc_json *object, const char *pointer, const char *key)
{
	struct mc_field field = {.value = mc_json_get(object, key)};

	mc_pointer_join(field.where, pointer, key);
	return field;
}

void mc_field_wrong_type(
    const struct mc_field *field, const char *needed, struct mc_problems *problems)
{
	const char *found = mc_json_type_name(mc_json_type(field->value));
	bool vowel = strchr("aeio", found[0]) != NULL;

	mc_problems_add(problems, field->where, "is %s%s; needed %s",
	    mc_json_is_null(field->value) ? ""
	    : vowel                       ? "an "
					  : "a ",
	    found, needed);
}

void mc_keys_require(const struct mc_json *object, const char *pointer, const char *const *known,
    size_t count, struct mc_problems *problems)
{
	struct mc_json_iter member = mc_json_iter(object);

	while (mc_json_next(&member)) {
		bool found = false;
		for (size_t k = 0; k < count && !found; k++)
			found = strcmp(member.key, known[k]) == 0;
		if (!found)
			mc_problems_add_unknown_key(problems, pointer, member.key, known, count);
	}
}

void mc_name_unknown(const char *where, const char *what, const char *name,
    const char *const *known, size_t count, struct mc_problems *problems)
{
	const char *nearest = mc_nearest(name, known, count);
	char list[300] = "";
	size_t used = 0;

	if (nearest != NULL) {
		mc_problems_add(
		    problems, where, "unknown %s '%.64s'; did you mean '%s'?", what, name, nearest);
		return;
	}
	for (size_t i = 0; i < count && used < sizeof list; i++)
		used += (size_t)snprintf(
		    list + used, sizeof list - used, "%s%s", i > 0 ? ", " : "", known[i]);
	mc_problems_add(problems, where, "unknown %s '%.64s'; known are %s", what, name, list);
}

static bool append_string(char ***list, size_t *count, const char *text, struct mc_error *err)
{
	char **grown = reallocarray(*list, *count + 1, sizeof *grown);

	if (grown == NULL)
		return mc_fail(err, MC_NO_MEMORY, "targets", "cannot allocate a list of %zu names",
		    *count + 1);
	*list = grown;
	grown[*count] = mc_strdup(text, err);
	if (grown[*count] == NULL)
		return false;
	(*count)++;
	return true;
}

/* A name with a NUL in it would silently be another name. */
static bool read_string(const struct mc_field *field, char ***list, size_t *count,
    struct mc_problems *problems, struct mc_error *err)
{
	size_t length;

	if (mc_json_type(field->value) != MC_JSON_STRING) {
		mc_field_wrong_type(field, "a string", problems);
		return true;
	}
	const char *text = mc_json_string(field->value, &length);
	if (strlen(text) != length) {
		mc_problems_add(problems, field->where, "has a NUL character in it");
		return true;
	}
	return append_string(list, count, text, err);
}

bool mc_strings_read(const struct mc_field *field, char ***list, size_t *count,
    struct mc_problems *problems, struct mc_error *err)
{
	if (mc_json_type(field->value) == MC_JSON_STRING)
		return read_string(field, list, count, problems, err);
	if (mc_json_type(field->value) != MC_JSON_ARRAY) {
		mc_field_wrong_type(field, "a list of strings", problems);
		return true;
	}
	for (size_t i = 0; i < mc_json_size(field->value); i++) {
		struct mc_field one = {.value = mc_json_at(field->value, i)};
		mc_pointer_index(one.where, field->where, i);
		if (!read_string(&one, list, count, problems, err))
			return false;
	}
	return true;
}

void mc_strings_free(char **list, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(list[i]);
	free(list);
}

static char lower(char c)
{
	return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

/* Of ASCII only: what a locale thinks of letters does not matter here. */
bool mc_equal_folded(const char *a, const char *b)
{
	for (; *a != '\0' && lower(*a) == lower(*b); a++)
		b++;
	return *a == *b;
}
