/*
 * json.c - strict JSON; the only file that knows jansson
 *
 * A struct mc_json is a json_t under another name. Parsing and the tree are jansson's; writing is
 * our own, because numbers must come out the same in every locale and with the fewest digits.
 */
#include "moecal/json.h"

#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/fault.h"

/* As deep as jansson parses; trees that we build ourselves stay far below. */
#define DEEPEST 2048u

_Static_assert(sizeof(json_int_t) == sizeof(int64_t), "integers are 64 bits wide");

/* jansson does not promise const where it does not change anything. */
static json_t *inner(const struct mc_json *value)
{
	return (json_t *)(uintptr_t)value;
}

static struct mc_json *outer(json_t *value)
{
	return (struct mc_json *)value;
}

/* --- life ------------------------------------------------------------------------------------ */

/* jansson passes over a NUL byte that follows a number. JSON has none anywhere. */
static bool require_no_nul(const char *text, size_t length, const char *where, struct mc_error *err)
{
	const char *nul = length ? memchr(text, '\0', length) : NULL;

	if (nul)
		return mc_fail(err, MC_INVALID, where, "not valid JSON: byte %zu is NUL",
		    (size_t)(nul - text));
	return true;
}

struct mc_json *mc_json_parse(
    const char *text, size_t length, const char *where, struct mc_error *err)
{
	json_error_t error;
	json_t *root = NULL;

	if (mc_fault_here("alloc")) {
		mc_fail(err, MC_NO_MEMORY, where, "no memory for a JSON text of %zu bytes", length);
		return NULL;
	}
	if (!require_no_nul(text, length, where, err))
		return NULL;
	root = json_loadb(length ? text : "", length,
	    JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &error);
	if (root)
		return outer(root);
	if (json_error_code(&error) == json_error_out_of_memory)
		mc_fail(err, MC_NO_MEMORY, where, "no memory for a JSON text of %zu bytes", length);
	else
		mc_fail(err, MC_INVALID, where, "not valid JSON: line %d, column %d: %s",
		    error.line, error.column, error.text);
	return NULL;
}

void mc_json_free(struct mc_json *root)
{
	json_decref(inner(root));
}

struct mc_json *mc_json_copy(const struct mc_json *value, struct mc_error *err)
{
	json_t *copy = mc_fault_here("alloc") ? NULL : json_deep_copy(inner(value));

	if (!copy)
		mc_fail(err, MC_NO_MEMORY, "", "no memory for a copy of a JSON value");
	return outer(copy);
}

bool mc_json_equal(const struct mc_json *a, const struct mc_json *b)
{
	return a && b && json_equal(inner(a), inner(b));
}

/* --- reading --------------------------------------------------------------------------------- */

enum mc_json_type mc_json_type(const struct mc_json *value)
{
	if (!value)
		return MC_JSON_NULL;
	switch (json_typeof(inner(value))) {
	case JSON_OBJECT:
		return MC_JSON_OBJECT;
	case JSON_ARRAY:
		return MC_JSON_ARRAY;
	case JSON_STRING:
		return MC_JSON_STRING;
	case JSON_INTEGER:
		return MC_JSON_INTEGER;
	case JSON_REAL:
		return MC_JSON_REAL;
	case JSON_TRUE:
	case JSON_FALSE:
		return MC_JSON_BOOL;
	case JSON_NULL:
		break;
	}
	return MC_JSON_NULL;
}

const char *mc_json_type_name(enum mc_json_type type)
{
	switch (type) {
	case MC_JSON_NULL:
		return "null";
	case MC_JSON_BOOL:
		return "boolean";
	case MC_JSON_INTEGER:
		return "integer";
	case MC_JSON_REAL:
		return "real number";
	case MC_JSON_STRING:
		return "string";
	case MC_JSON_ARRAY:
		return "array";
	case MC_JSON_OBJECT:
		return "object";
	}
	return "unknown";
}

size_t mc_json_size(const struct mc_json *value)
{
	/* Both are 0 for anything else, NULL too. */
	return json_object_size(inner(value)) + json_array_size(inner(value));
}

const struct mc_json *mc_json_get(const struct mc_json *object, const char *key)
{
	return outer(json_object_get(inner(object), key));
}

const struct mc_json *mc_json_at(const struct mc_json *array, size_t index)
{
	return outer(json_array_get(inner(array), index));
}

struct mc_json_iter mc_json_iter(const struct mc_json *object)
{
	return (struct mc_json_iter){.object = object};
}

bool mc_json_next(struct mc_json_iter *iter)
{
	json_t *object = inner(iter->object);

	if (!object)
		return false;
	iter->at = iter->at ? json_object_iter_next(object, iter->at) : json_object_iter(object);
	if (!iter->at) {
		/* A walk that has ended stays ended. */
		*iter = (struct mc_json_iter){0};
		return false;
	}
	iter->key = json_object_iter_key(iter->at);
	iter->value = outer(json_object_iter_value(iter->at));
	return true;
}

const struct mc_json *mc_json_member(
    const struct mc_json *object, size_t index, const char **ret_key)
{
	struct mc_json_iter member = mc_json_iter(object);

	if (index >= json_object_size(inner(object)))
		return NULL;
	for (size_t i = 0; i <= index; i++) {
		if (!mc_json_next(&member))
			return NULL;
	}
	*ret_key = member.key;
	return member.value;
}

const char *mc_json_string(const struct mc_json *value, size_t *ret_length)
{
	mc_assert(json_is_string(inner(value)));
	if (ret_length)
		*ret_length = json_string_length(inner(value));
	return json_string_value(inner(value));
}

int64_t mc_json_integer(const struct mc_json *value)
{
	mc_assert(json_is_integer(inner(value)));
	return json_integer_value(inner(value));
}

double mc_json_number(const struct mc_json *value)
{
	mc_assert(json_is_number(inner(value)));
	return json_number_value(inner(value));
}

bool mc_json_bool(const struct mc_json *value)
{
	mc_assert(json_is_boolean(inner(value)));
	return json_is_true(inner(value));
}

bool mc_json_is_null(const struct mc_json *value)
{
	return !value || json_is_null(inner(value));
}

/* --- making ---------------------------------------------------------------------------------- */

struct mc_json *mc_json_new_object(void)
{
	return mc_fault_here("alloc") ? NULL : outer(json_object());
}

struct mc_json *mc_json_new_array(void)
{
	return mc_fault_here("alloc") ? NULL : outer(json_array());
}

struct mc_json *mc_json_new_string(const char *text)
{
	return mc_fault_here("alloc") ? NULL : outer(json_string(text));
}

struct mc_json *mc_json_new_integer(int64_t value)
{
	return mc_fault_here("alloc") ? NULL : outer(json_integer(value));
}

struct mc_json *mc_json_new_real(double value)
{
	if (!isfinite(value))
		return mc_json_new_null();
	return mc_fault_here("alloc") ? NULL : outer(json_real(value));
}

struct mc_json *mc_json_new_bool(bool value)
{
	return outer(json_boolean(value));
}

struct mc_json *mc_json_new_null(void)
{
	return outer(json_null());
}

bool mc_json_set(
    struct mc_json *object, const char *key, struct mc_json *child, struct mc_error *err)
{
	if (!object) { /* it could not be made: the makers leave this one check to us */
		mc_json_free(child);
		return mc_fail(err, MC_NO_MEMORY, "JSON", "no memory for an object");
	}
	mc_assert(json_is_object(inner(object)) && child != object);
	if (!child)
		return mc_fail(err, MC_NO_MEMORY, key,
		    "the JSON value could not be made: no memory, or a text that is not UTF-8");
	if (mc_fault_here("alloc")) {
		mc_json_free(child);
		return mc_fail(err, MC_NO_MEMORY, key, "no memory for a member of a JSON object");
	}
	if (json_object_set_new(inner(object), key, inner(child)) == 0)
		return true;
	/* jansson gives no reason. A key that cannot become a string is not UTF-8. */
	json_t *probe = json_string(key);
	bool bad_key = !probe;
	json_decref(probe);
	if (bad_key)
		return mc_fail(
		    err, MC_INVALID, key, "the name of a JSON member is not valid UTF-8");
	return mc_fail(err, MC_NO_MEMORY, key, "no memory for a member of a JSON object");
}

bool mc_json_append(struct mc_json *array, struct mc_json *child, struct mc_error *err)
{
	if (!array) { /* it could not be made: the makers leave this one check to us */
		mc_json_free(child);
		return mc_fail(err, MC_NO_MEMORY, "JSON", "no memory for an array");
	}
	mc_assert(json_is_array(inner(array)) && child != array);
	if (!child)
		return mc_fail(err, MC_NO_MEMORY, "",
		    "the JSON value could not be made: no memory, or a text that is not UTF-8");
	if (mc_fault_here("alloc")) {
		mc_json_free(child);
		return mc_fail(err, MC_NO_MEMORY, "", "no memory for an element of a JSON array");
	}
	if (json_array_append_new(inner(array), inner(child)) != 0)
		return mc_fail(err, MC_NO_MEMORY, "", "no memory for an element of a JSON array");
	return true;
}

bool mc_json_remove(struct mc_json *object, const char *key)
{
	return json_object_del(inner(object), key) == 0;
}

/* --- writing --------------------------------------------------------------------------------- */

struct writer {
	struct mc_buf *out;
	struct mc_error *err;
	bool pretty;
	bool sorted;
};

struct member {
	const char *key;
	size_t key_length;
	json_t *value;
};

static bool write_value(struct writer *w, json_t *value, unsigned depth);

static bool put(struct writer *w, const char *text, size_t length)
{
	return mc_buf_add(w->out, text, length, w->err);
}

static bool write_string(struct writer *w, const char *text, size_t length)
{
	size_t plain = 0; /* where the bytes that need no escape begin */
	bool ok = put(w, "\"", 1);

	for (size_t i = 0; i < length && ok; i++) {
		unsigned char c = (unsigned char)text[i];
		char escape[7];

		if (c >= 0x20 && c != '"' && c != '\\')
			continue;
		if (c == '"' || c == '\\')
			snprintf(escape, sizeof(escape), "\\%c", c);
		else if (c == '\b' || c == '\t' || c == '\n' || c == '\f' || c == '\r')
			snprintf(escape, sizeof(escape), "\\%c", "btn?fr"[c - '\b']);
		else
			snprintf(escape, sizeof(escape), "\\u%04x", c);
		ok = put(w, text + plain, i - plain) && put(w, escape, strlen(escape));
		plain = i + 1;
	}
	return ok && put(w, text + plain, length - plain) && put(w, "\"", 1);
}

/* Is d1.d2d3... * 10^exponent the value? Asked without a decimal point, which has a locale. */
static bool reads_back(const char *digits, int exponent, double value)
{
	char text[48];

	snprintf(text, sizeof(text), "%se%d", digits, exponent - (int)strlen(digits) + 1);
	return strtod(text, NULL) == value;
}

/* Adds one in the last place; false when only nines stand there. */
static bool next_up(char *digits)
{
	size_t n = strlen(digits);

	while (n > 0 && digits[n - 1] == '9')
		digits[--n] = '0';
	if (n > 0)
		digits[n - 1]++;
	return n > 0;
}

/*
 * The fewest digits d1d2d3... (value = d1.d2d3... * 10^exponent) that read back to the same value.
 * Rounding to n digits finds them but for one case: above a power of two the next double is twice
 * as far as below it, so the n digits above may read back when the nearer ones below do not.
 */
static void shortest_digits(double value, char digits[24], int *ret_exponent)
{
	/* 15 digits survive the way through a normal double, so fewer need no try: they end in
	 * zeros. Subnormal numbers hold less. */
	int precision = value < DBL_MIN ? 1 : 15;
	char text[40];
	size_t n;

	for (; precision <= 17; precision++) {
		const char *s = text;

		snprintf(text, sizeof(text), "%.*e", precision - 1, value);
		for (n = 0; *s != 'e'; s++) {
			if (*s >= '0' && *s <= '9')
				digits[n++] = *s;
		}
		digits[n] = '\0';
		*ret_exponent = (int)strtol(s + 1, NULL, 10);
		if (reads_back(digits, *ret_exponent, value) ||
		    (next_up(digits) && reads_back(digits, *ret_exponent, value)))
			break;
	}
	for (n = strlen(digits); n > 1 && digits[n - 1] == '0'; n--)
		digits[n - 1] = '\0';
}

static bool write_real(struct writer *w, double value)
{
	char digits[24], text[64];
	int exponent = 0, count;

	shortest_digits(fabs(value), digits, &exponent);
	count = (int)strlen(digits);
	const char *sign = signbit(value) ? "-" : "";
	if (exponent < -4 || exponent >= 16)
		snprintf(text, sizeof(text), "%s%c%s%se%c%02d", sign, digits[0],
		    count > 1 ? "." : "", digits + 1, exponent < 0 ? '-' : '+', abs(exponent));
	else if (exponent < 0)
		snprintf(text, sizeof(text), "%s0.%.*s%s", sign, -exponent - 1, "000", digits);
	else if (exponent >= count - 1)
		snprintf(text, sizeof(text), "%s%s%.*s.0", sign, digits, exponent - count + 1,
		    "0000000000000000");
	else
		snprintf(text, sizeof(text), "%s%.*s.%s", sign, exponent + 1, digits,
		    digits + exponent + 1);
	return put(w, text, strlen(text));
}

/* Between elements, when pretty: a new line and the indent. */
static bool write_break(struct writer *w, unsigned depth)
{
	bool ok = !w->pretty || put(w, "\n", 1);

	for (unsigned i = 0; w->pretty && i < depth && ok; i++)
		ok = put(w, "  ", 2);
	return ok;
}

static bool write_array(struct writer *w, json_t *array, unsigned depth)
{
	size_t count = json_array_size(array);
	bool ok = put(w, "[", 1);

	for (size_t i = 0; i < count && ok; i++)
		ok = (i == 0 || put(w, ",", 1)) && write_break(w, depth + 1) &&
		     write_value(w, json_array_get(array, i), depth + 1);
	return ok && (count == 0 || write_break(w, depth)) && put(w, "]", 1);
}

static bool write_member(struct writer *w, const struct member *m, bool first, unsigned depth)
{
	return (first || put(w, ",", 1)) && write_break(w, depth + 1) &&
	       write_string(w, m->key, m->key_length) && put(w, ": ", w->pretty ? 2 : 1) &&
	       write_value(w, m->value, depth + 1);
}

/* In UTF-8 the order of bytes is the order of code points. */
static int by_key(const void *a, const void *b)
{
	const struct member *x = a, *y = b;
	size_t shorter = x->key_length < y->key_length ? x->key_length : y->key_length;
	int order = memcmp(x->key, y->key, shorter);

	return order ? order : (x->key_length > y->key_length) - (x->key_length < y->key_length);
}

static struct member member_at(void *at)
{
	return (struct member){.key = json_object_iter_key(at),
	    .key_length = json_object_iter_key_len(at),
	    .value = json_object_iter_value(at)};
}

static bool write_sorted(struct writer *w, json_t *object, unsigned depth)
{
	size_t count = json_object_size(object), n = 0;
	struct member *members = mc_alloc(count, sizeof(*members), "sorting a JSON object", w->err);
	bool ok = members != NULL;

	if (!ok)
		return false;
	for (void *at = json_object_iter(object); at; at = json_object_iter_next(object, at))
		members[n++] = member_at(at);
	qsort(members, n, sizeof(*members), by_key);
	for (size_t i = 0; i < n && ok; i++)
		ok = write_member(w, &members[i], i == 0, depth);
	free(members);
	return ok;
}

static bool write_object(struct writer *w, json_t *object, unsigned depth)
{
	void *first = json_object_iter(object);
	bool ok = put(w, "{", 1);

	if (w->sorted && first && ok) {
		ok = write_sorted(w, object, depth);
	} else {
		for (void *at = first; at && ok; at = json_object_iter_next(object, at)) {
			struct member m = member_at(at);

			ok = write_member(w, &m, at == first, depth);
		}
	}
	return ok && (!first || write_break(w, depth)) && put(w, "}", 1);
}

static bool write_value(struct writer *w, json_t *value, unsigned depth)
{
	if (depth > DEEPEST)
		return mc_fail(w->err, MC_INVALID, "",
		    "a JSON value nested deeper than %u cannot be written", DEEPEST);
	switch (json_typeof(value)) {
	case JSON_OBJECT:
		return write_object(w, value, depth);
	case JSON_ARRAY:
		return write_array(w, value, depth);
	case JSON_STRING:
		return write_string(w, json_string_value(value), json_string_length(value));
	case JSON_INTEGER:
		return mc_buf_addf(w->out, w->err, "%" PRId64, (int64_t)json_integer_value(value));
	case JSON_REAL:
		return write_real(w, json_real_value(value));
	case JSON_TRUE:
		return put(w, "true", 4);
	case JSON_FALSE:
		return put(w, "false", 5);
	case JSON_NULL:
		break;
	}
	return put(w, "null", 4);
}

bool mc_json_write(
    const struct mc_json *value, unsigned style, struct mc_buf *out, struct mc_error *err)
{
	struct writer w = {.out = out,
	    .err = err,
	    .pretty = (style & MC_JSON_PRETTY) != 0,
	    .sorted = (style & MC_JSON_SORTED) != 0};
	size_t before = out->length;

	if (!value)
		return mc_fail(err, MC_NO_MEMORY, "", "the JSON value to write could not be made");
	if (write_value(&w, inner(value), 0) && (!w.pretty || put(&w, "\n", 1)))
		return true;
	/* Half a document is worse than none. */
	out->length = before;
	if (out->data)
		out->data[before] = '\0';
	return false;
}
