/*
 * recipe_yaml.c - YAML to JSON, with PyYAML's safe types; one of two walls around libyaml
 *
 * Events are folded into a stack of open containers. Aliases become copies, of which there is a
 * limit: nothing may expand without end.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <yaml.h>

#include "recipe_yaml.h"

#define MAX_BYTES ((size_t)1 << 20)
#define MAX_DEPTH 64
#define MAX_ANCHORS 256
#define MAX_COPIED 65536 /* values that aliases may make */

/* What the reference's own dumper puts around the names of its enumerations: !!python/object/apply:
 * compressed_tensors... [int]. The name is all that is in there. */
#define ENUM_TAG "tag:yaml.org,2002:python/object/apply:compressed_tensors."

struct level {
	struct mc_json *container; /* borrowed from the root, or the root */
	char *key;                 /* of a mapping: waiting for its value; owned */
	bool wrapper;              /* stands for its only element; the container is owned then */
};

struct anchor {
	char *name;                  /* owned */
	const struct mc_json *value; /* borrowed from the root */
};

struct reader {
	yaml_parser_t parser;
	const char *where;
	struct level stack[MAX_DEPTH];
	size_t depth;
	struct mc_json *root; /* owned until given away */
	struct anchor anchors[MAX_ANCHORS];
	size_t anchors_count;
	size_t copied; /* values made by aliases */
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

struct mc_json *mc_yaml_plain(const char *text)
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

/* --- anchors, aliases, merged mappings
 * ------------------------------------------------------------ */

/* A later anchor of the same name takes its place. */
static bool set_anchor(
    struct reader *r, const yaml_char_t *name, const struct mc_json *value, struct mc_error *err)
{
	size_t i = 0;

	if (name == NULL || value == NULL)
		return true;
	while (i < r->anchors_count && strcmp(r->anchors[i].name, (const char *)name) != 0)
		i++;
	if (i == MAX_ANCHORS)
		return mc_fail(err, MC_INVALID, r->where, "more than %d anchors", MAX_ANCHORS);
	if (i == r->anchors_count) {
		r->anchors[i].name = strdup((const char *)name);
		if (r->anchors[i].name == NULL)
			return mc_fail(err, MC_NO_MEMORY, r->where, "no memory for an anchor");
		r->anchors_count++;
	}
	r->anchors[i].value = value;
	return true;
}

static size_t count_values(const struct mc_json *value)
{
	struct mc_json_iter member = mc_json_iter(value);
	size_t count = 1;

	while (mc_json_next(&member))
		count += count_values(member.value);
	for (size_t i = 0; mc_json_type(value) == MC_JSON_ARRAY && i < mc_json_size(value); i++)
		count += count_values(mc_json_at(value, i));
	return count;
}

/* A copy of what the alias names, which must be complete. */
static struct mc_json *alias_value(
    struct reader *r, const yaml_event_t *event, struct mc_error *err)
{
	const char *name = (const char *)event->data.alias.anchor;
	const struct mc_json *value = NULL;

	for (size_t i = 0; i < r->anchors_count; i++)
		if (strcmp(r->anchors[i].name, name) == 0)
			value = r->anchors[i].value;
	for (size_t i = 0; i < r->depth; i++)
		if (value == r->stack[i].container)
			value = NULL;
	if (value == NULL) {
		(void)fail_at(r, &event->start_mark, MC_INVALID,
		    "this alias names no value that stands before it", err);
		return NULL;
	}
	r->copied += count_values(value);
	if (r->copied > MAX_COPIED) {
		(void)fail_at(
		    r, &event->start_mark, MC_INVALID, "aliases make too many values", err);
		return NULL;
	}
	return mc_json_copy(value, err);
}

static bool merge_one(
    struct mc_json *into, const struct mc_json *from, bool *ret_fits, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(from);

	*ret_fits = mc_json_type(from) == MC_JSON_OBJECT;
	while (mc_json_next(&member))
		if (mc_json_get(into, member.key) == NULL &&
		    !mc_json_set(into, member.key, mc_json_copy(member.value, err), err))
			return false;
	return true;
}

/* "<<: *base" at the end of its mapping: members that are not there already. */
static bool merge(
    struct reader *r, struct mc_json *into, const yaml_mark_t *mark, struct mc_error *err)
{
	const struct mc_json *found = mc_json_get(into, "<<");
	bool fits = true, ok = true;

	if (found == NULL)
		return true;
	struct mc_json *from = mc_json_copy(found, err);
	if (from == NULL)
		return false;
	mc_json_remove(into, "<<");
	if (mc_json_type(from) == MC_JSON_ARRAY)
		for (size_t i = 0; ok && fits && i < mc_json_size(from); i++)
			ok = merge_one(into, mc_json_at(from, i), &fits, err);
	else
		ok = merge_one(into, from, &fits, err);
	mc_json_free(from);
	return ok && (fits || fail_at(r, mark, MC_INVALID, "<< needs a mapping", err));
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
	struct mc_json *value = plain ? mc_yaml_plain(text) : mc_json_new_string(text);
	return place(r, value, &event->start_mark, err) &&
	       set_anchor(r, event->data.scalar.anchor, value, err);
}

static bool is_enum(const yaml_char_t *tag)
{
	return tag != NULL && strncmp((const char *)tag, ENUM_TAG, strlen(ENUM_TAG)) == 0;
}

static bool on_open(struct reader *r, const yaml_event_t *event, struct mc_json *container,
    const yaml_char_t *tag, const yaml_char_t *anchor, struct mc_error *err)
{
	struct level *top = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;
	bool wrapper = event->type == YAML_SEQUENCE_START_EVENT && is_enum(tag);
	bool key = top != NULL && mc_json_type(top->container) == MC_JSON_OBJECT &&
		   top->key == NULL;

	if (r->depth == MAX_DEPTH || key || (tag != NULL && !wrapper) || container == NULL) {
		mc_json_free(container);
		return fail_at(r, &event->start_mark,
		    container == NULL ? MC_NO_MEMORY
		    : tag != NULL     ? MC_UNSUPPORTED
				      : MC_INVALID,
		    container == NULL       ? "no memory for the document"
		    : r->depth == MAX_DEPTH ? "nested too deeply"
		    : key                   ? "a key must be a plain word"
					    : "tags are not supported",
		    err);
	}
	/* a wrapper's element takes its place when it is complete */
	if (!wrapper && (!place(r, container, &event->start_mark, err) ||
			    !set_anchor(r, anchor, container, err)))
		return false;
	r->stack[r->depth++] = (struct level){.container = container, .wrapper = wrapper};
	return true;
}

static bool on_close(struct reader *r, const yaml_event_t *event, struct mc_error *err)
{
	struct level *top = &r->stack[r->depth - 1];
	struct mc_json *container = top->container;

	r->depth--;
	if (!top->wrapper)
		return mc_json_type(container) != MC_JSON_OBJECT ||
		       merge(r, container, &event->start_mark, err);
	top->wrapper = false;
	bool one = mc_json_size(container) == 1;
	struct mc_json *value = one ? mc_json_copy(mc_json_at(container, 0), err) : NULL;
	mc_json_free(container);
	if (!one)
		return fail_at(
		    r, &event->start_mark, MC_UNSUPPORTED, "tags are not supported", err);
	return value != NULL && place(r, value, &event->start_mark, err);
}

static bool on_alias(struct reader *r, const yaml_event_t *event, struct mc_error *err)
{
	const struct level *top = r->depth > 0 ? &r->stack[r->depth - 1] : NULL;

	if (top != NULL && mc_json_type(top->container) == MC_JSON_OBJECT && top->key == NULL)
		return fail_at(
		    r, &event->start_mark, MC_INVALID, "a key must be a plain word", err);
	struct mc_json *value = alias_value(r, event, err);
	return value != NULL && place(r, value, &event->start_mark, err);
}

static bool on_event(
    struct reader *r, const yaml_event_t *event, bool *ret_done, struct mc_error *err)
{
	switch (event->type) {
	case YAML_SCALAR_EVENT:
		return on_scalar(r, event, err);
	case YAML_MAPPING_START_EVENT:
		return on_open(r, event, mc_json_new_object(), event->data.mapping_start.tag,
		    event->data.mapping_start.anchor, err);
	case YAML_SEQUENCE_START_EVENT:
		return on_open(r, event, mc_json_new_array(), event->data.sequence_start.tag,
		    event->data.sequence_start.anchor, err);
	case YAML_MAPPING_END_EVENT:
	case YAML_SEQUENCE_END_EVENT:
		return on_close(r, event, err);
	case YAML_ALIAS_EVENT:
		return on_alias(r, event, err);
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

static void reader_release(struct reader *r)
{
	for (size_t i = 0; i < MAX_DEPTH; i++) {
		free(r->stack[i].key);
		if (r->stack[i].wrapper && i < r->depth)
			mc_json_free(r->stack[i].container);
	}
	for (size_t i = 0; i < r->anchors_count; i++)
		free(r->anchors[i].name);
	yaml_parser_delete(&r->parser);
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
	bool braces = text[first] == '{' || text[first] == '[';
	struct mc_error not_json;
	mc_error_init(&not_json);
	struct mc_json *json = braces ? mc_json_parse(text, length, where, &not_json) : NULL;
	if (json != NULL)
		return json;
	if (not_json.code == MC_NO_MEMORY || !yaml_parser_initialize(&r.parser)) {
		(void)mc_fail(err, MC_NO_MEMORY, where, "no memory to read YAML");
		return NULL;
	}
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)text, length);
	bool ok = read_all(&r, err);
	if (ok && r.root == NULL)
		ok = mc_fail(err, MC_INVALID, where, "the document is empty");
	reader_release(&r);
	if (ok)
		return r.root;
	mc_json_free(r.root);
	/* what is neither was meant to be JSON when it begins like it */
	if (braces && err->code == MC_INVALID) {
		mc_error_init(err);
		(void)mc_fail(err, not_json.code, not_json.where, "%s", not_json.text);
	}
	return NULL;
}
