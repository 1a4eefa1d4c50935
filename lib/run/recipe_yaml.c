/*
 * recipe_yaml.c - YAML to JSON, with PyYAML's safe types; the wall around libyaml
 *
 * Events are folded into a stack of open containers. Aliases are refused: nothing may expand.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "moecal/recipe.h"

#define MAX_BYTES ((size_t)1 << 20)
#define MAX_DEPTH 64

struct level {
	struct mc_json *container; /* borrowed from the root, or the root */
	char *key;                 /* of a mapping: waiting for its value; owned */
};

struct reader {
	yaml_parser_t parser;
	const char *where;
	struct level stack[MAX_DEPTH];
	size_t depth;
	struct mc_json *root; /* owned until given away */
};

static bool fail_at(struct reader *r, const yaml_mark_t *mark, enum mc_code code, const char *what,
    struct mc_error *err)
{
	return mc_fail(err, code, r->where, "line %zu, column %zu: %s", mark->line + 1,
	    mark->column + 1, what);
}

static bool all_of(const char *text, const char *set)
{
	return *text != '\0' && text[strspn(text, set)] == '\0';
}

/* Decimal, 0x and 0 (octal) integers, underscores allowed, as YAML 1.1 has them. */
static bool read_integer(const char *text, int64_t *ret)
{
	char digits[32];
	size_t n = 0;
	const char *p = text + (*text == '-' || *text == '+');
	int base = 10;

	if (strncmp(p, "0x", 2) == 0) {
		base = 16;
		p += 2;
	} else if (p[0] == '0' && p[1] != '\0') {
		base = 8;
	}
	if (!all_of(p, base == 16  ? "0123456789abcdefABCDEF_"
		       : base == 8 ? "01234567_"
				   : "0123456789_") ||
	    *p == '_')
		return false;
	if (*text == '-')
		digits[n++] = '-';
	for (; *p != '\0'; p++) {
		if (*p == '_')
			continue;
		if (n + 1 >= sizeof digits)
			return false;
		digits[n++] = *p;
	}
	digits[n] = '\0';
	char *end;
	long long value = strtoll(digits, &end, base);
	*ret = value;
	return *end == '\0' && value != INT64_MAX && value != INT64_MIN;
}

/* Reals need a point; an exponent needs a sign: that is the rule that recipes were written under.
 */
static bool read_real(const char *text, double *ret)
{
	char copy[64];
	size_t n = 0, digits = 0;
	const char *p = text;
	bool point = false;

	for (; *p != '\0' && n + 1 < sizeof copy; p++) {
		if (*p == '_')
			continue;
		if (*p == '.' && !point)
			point = true;
		else if (*p >= '0' && *p <= '9')
			digits++;
		else if (!((*p == '-' || *p == '+') && n == 0))
			break;
		copy[n++] = *p;
	}
	if (!point || digits == 0)
		return false;
	if ((*p == 'e' || *p == 'E') && (p[1] == '-' || p[1] == '+') &&
	    all_of(p + 2, "0123456789") && n + strlen(p) < sizeof copy) {
		strcpy(copy + n, p);
		n += strlen(p);
		p += strlen(p);
	}
	copy[n] = '\0';
	/* the locale of the library's callers is not ours to choose: only the C locale's point is
	 * written here, and the program never calls setlocale */
	*ret = strtod(copy, NULL);
	return *p == '\0';
}

static bool one_of(const char *text, const char *const *words)
{
	for (; *words != NULL; words++)
		if (strcmp(text, *words) == 0)
			return true;
	return false;
}

static struct mc_json *plain_scalar(const char *text)
{
	static const char *const null_words[] = {"", "~", "null", "Null", "NULL", NULL};
	static const char *const true_words[] = {
	    "true", "True", "TRUE", "yes", "Yes", "YES", "on", "On", "ON", NULL};
	static const char *const false_words[] = {
	    "false", "False", "FALSE", "no", "No", "NO", "off", "Off", "OFF", NULL};
	int64_t integer;
	double real;

	if (one_of(text, null_words))
		return mc_json_new_null();
	if (one_of(text, true_words) || one_of(text, false_words))
		return mc_json_new_bool(one_of(text, true_words));
	if (read_integer(text, &integer))
		return mc_json_new_integer(integer);
	if (read_real(text, &real))
		return mc_json_new_real(real);
	return mc_json_new_string(text);
}

/* Puts a finished value where it belongs. */
static bool place(
    struct reader *r, struct mc_json *value, const yaml_mark_t *mark, struct mc_error *err)
{
	if (r->depth == 0) {
		r->root = value;
		return value != NULL ||
		       mc_fail(err, MC_NO_MEMORY, r->where, "no memory for the document");
	}
	struct level *top = &r->stack[r->depth - 1];
	if (mc_json_type(top->container) == MC_JSON_ARRAY)
		return mc_json_append(top->container, value, err);
	if (mc_json_get(top->container, top->key) != NULL) {
		mc_json_free(value);
		return fail_at(r, mark, MC_INVALID, "this key was given before", err);
	}
	bool ok = mc_json_set(top->container, top->key, value, err);
	free(top->key);
	top->key = NULL;
	return ok;
}

static bool on_scalar(struct reader *r, const yaml_event_t *event, struct mc_error *err)
{
	const char *text = (const char *)event->data.scalar.value;
	bool plain = event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
	struct level *top = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;

	if (strlen(text) != event->data.scalar.length)
		return fail_at(r, &event->start_mark, MC_INVALID, "a NUL in the text", err);
	if (event->data.scalar.tag != NULL)
		return fail_at(
		    r, &event->start_mark, MC_UNSUPPORTED, "tags are not supported", err);
	if (top != NULL && mc_json_type(top->container) == MC_JSON_OBJECT && top->key == NULL) {
		top->key = strdup(text);
		return top->key != NULL ||
		       mc_fail(err, MC_NO_MEMORY, r->where, "no memory for a key");
	}
	return place(
	    r, plain ? plain_scalar(text) : mc_json_new_string(text), &event->start_mark, err);
}

static bool on_open(
    struct reader *r, const yaml_event_t *event, struct mc_json *container, struct mc_error *err)
{
	struct level *top = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;

	if (r->depth == MAX_DEPTH ||
	    (top != NULL && mc_json_type(top->container) == MC_JSON_OBJECT && top->key == NULL)) {
		mc_json_free(container);
		return fail_at(r, &event->start_mark, MC_INVALID,
		    r->depth == MAX_DEPTH ? "nested too deeply" : "a key must be a plain word",
		    err);
	}
	if (!place(r, container, &event->start_mark, err))
		return false;
	r->stack[r->depth++] = (struct level){.container = container};
	return true;
}

static bool on_event(
    struct reader *r, const yaml_event_t *event, bool *ret_done, struct mc_error *err)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return on_scalar(r, event, err);
	case YAML_MAPPING_START_EVENT:
		return on_open(r, event, mc_json_new_object(), err);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(r, event, mc_json_new_array(), err);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		r->depth--;
		return true;
	case YAML_ALIAS_EVENT:
		return fail_at(
		    r, &event->start_mark, MC_UNSUPPORTED, "aliases are not supported", err);
	case YAML_DOCUMENT_START_EVENT:
		if (r->root != NULL)
			return fail_at(r, &event->start_mark, MC_INVALID, "a second document", err);
		return true;
	case YAML_STREAM_END_EVENT:
		*ret_done = true;
		return true;
	case YAML_NO_EVENT:
	case YAML_STREAM_START_EVENT:
	case YAML_DOCUMENT_END_EVENT:
		break;
	}
	return true;
}

static bool read_all(struct reader *r, struct mc_error *err)
{
	bool done = false, ok = true;

	while (ok && !done) {
		yaml_event_t event;
		if (!yaml_parser_parse(&r->parser, &event))
			return fail_at(r, &r->parser.problem_mark, MC_INVALID,
			    r->parser.problem != NULL ? r->parser.problem : "not YAML", err);
		ok = on_event(r, &event, &done, err);
		yaml_event_delete(&event);
	}
	return ok;
}

struct mc_json *mc_yaml_parse(
    const char *text, size_t length, const char *where, struct mc_error *err)
{
	struct reader r = {.where = where};

	if (length > MAX_BYTES) {
		(void)mc_fail(
		    err, MC_INVALID, where, "%zu bytes, at most %zu are read", length, MAX_BYTES);
		return NULL;
	}
	size_t first = strspn(text, " \t\r\n");
	if (text[first] == '{' || text[first] == '[')
		return mc_json_parse(text, length, where, err);
	if (!yaml_parser_initialize(&r.parser)) {
		(void)mc_fail(err, MC_NO_MEMORY, where, "no memory to read YAML");
		return NULL;
	}
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
	bool ok = read_all(&r, err);
	if (ok && r.root == NULL)
		ok = mc_fail(err, MC_INVALID, where, "the document is empty");
	for (size_t i = 0; i < MAX_DEPTH; i++)
		free(r.stack[i].key);
	yaml_parser_delete(&r.parser);
	if (ok)
		return r.root;
	mc_json_free(r.root);
	return NULL;
}
