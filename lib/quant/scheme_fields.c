/*
 * scheme_fields.c - reading fields of JSON objects with all complaints at once
 */
#include "scheme_parse.h"

#include <errno.h>
#include <math.h>
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

bool mc_strings_read(const struct mc_field *field, bool or_one, char ***list, size_t *count,
    struct mc_problems *problems, struct mc_error *err)
{
	if (or_one && mc_json_type(field->value) == MC_JSON_STRING)
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

/* --- values as the reference's parser coerces them -------------------------------------------- */

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

bool mc_integer_parse(const char *text, bool fraction, int64_t *ret)
{
	static const char blanks[] = " \t\n\r\f\v";
	char digits[32], *end;
	size_t used = 0;

	text += strspn(text, blanks);
	if (*text == '-' || *text == '+')
		digits[used++] = *text++;
	if (!is_digit(*text))
		return false;
	for (; is_digit(*text) || (*text == '_' && is_digit(text[-1]) && is_digit(text[1])); text++)
		if (*text != '_' && used + 1 < sizeof digits)
			digits[used++] = *text;
	if (fraction && *text == '.' && text[1] == '0')
		text += 1 + strspn(text + 1, "0");
	text += strspn(text, blanks);
	digits[used] = '\0';
	errno = 0;
	*ret = strtoll(digits, &end, 10);
	return *text == '\0' && used + 1 < sizeof digits && errno == 0;
}

/* The text of a JSON string, NULL when there is a NUL in it. */
static const char *whole_text(const struct mc_json *value)
{
	size_t length;
	const char *text = mc_json_string(value, &length);

	return strlen(text) == length ? text : NULL;
}

bool mc_integer_read(const struct mc_json *value, int64_t *ret)
{
	double number;

	switch (mc_json_type(value)) {
	case MC_JSON_INTEGER:
		*ret = mc_json_integer(value);
		return true;
	case MC_JSON_BOOL:
		*ret = mc_json_bool(value);
		return true;
	case MC_JSON_REAL:
		number = mc_json_number(value);
		*ret = fabs(number) < 0x1p53 ? (int64_t)number : 0;
		return fabs(number) < 0x1p53 && number == floor(number);
	case MC_JSON_STRING:
		return whole_text(value) != NULL && mc_integer_parse(whole_text(value), true, ret);
	case MC_JSON_NULL:
	case MC_JSON_ARRAY:
	case MC_JSON_OBJECT:
		break;
	}
	return false;
}

bool mc_bool_read(const struct mc_json *value, bool *ret)
{
	static const char *const words[] = {
	    "0", "1", "false", "true", "f", "t", "no", "yes", "n", "y", "off", "on"};
	enum mc_json_type type = mc_json_type(value);
	const char *text = type == MC_JSON_STRING ? whole_text(value) : NULL;

	if (type == MC_JSON_BOOL) {
		*ret = mc_json_bool(value);
		return true;
	}
	if (type == MC_JSON_INTEGER || type == MC_JSON_REAL) {
		*ret = mc_json_number(value) == 1;
		return mc_json_number(value) == 0 || mc_json_number(value) == 1;
	}
	for (size_t i = 0; text != NULL && i < sizeof words / sizeof *words; i++) {
		*ret = i % 2 == 1;
		if (mc_equal_folded(text, words[i]))
			return true;
	}
	return false;
}

bool mc_number_read(const struct mc_json *value)
{
	enum mc_json_type type = mc_json_type(value);
	const char *text = type == MC_JSON_STRING ? whole_text(value) : NULL;
	char *end;

	if (text == NULL)
		return type == MC_JSON_BOOL || type == MC_JSON_INTEGER || type == MC_JSON_REAL;
	(void)strtod(text, &end);
	bool hex = strpbrk(text, "xX") != NULL;
	return !hex && end != text && end[strspn(end, " \t\n\r\f\v")] == '\0';
}
