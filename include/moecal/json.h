/*
 * json.h - strict JSON; the only door to jansson
 *
 * Reading: UTF-8, duplicate keys refused, U+0000 allowed in strings, integers that do not fit int64
 * refused, depth and size limited. Values are borrowed from their root; only roots are freed.
 * Writing: objects keep insertion order unless sorted output is asked for; reals are written with
 * the fewest digits that read back to the same double (1e-06, 10000.0), independent of locale.
 */
#ifndef MC_JSON_H
#define MC_JSON_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/buf.h"
#include "moecal/error.h"

struct mc_json; /* any JSON value */

enum mc_json_type {
	MC_JSON_NULL,
	MC_JSON_BOOL,
	MC_JSON_INTEGER,
	MC_JSON_REAL,
	MC_JSON_STRING,
	MC_JSON_ARRAY,
	MC_JSON_OBJECT
};

/* --- life ------------------------------------------------------------------------------------ */

/* Parses exactly one value (nothing but white space after it). `where` goes into errors, which name
 * line and column. Errors: INVALID (syntax), NO_MEMORY. Owned: mc_json_free. */
struct mc_json *mc_json_parse(const char *text, size_t length, const char *where, struct mc_error *err)
    MC_CHECKED;
/* For text of strangers, before mc_json_parse: INVALID when it is nested deeper than `deepest` (trees are
 * copied and written by recursion) or a string holds \u0000 (everything else here ends at a NUL). */
bool mc_json_screen(const char *text, size_t length, unsigned deepest, const char *where, struct mc_error *err)
    MC_CHECKED;
void mc_json_free(struct mc_json *root); /* NULL is fine */
struct mc_json *mc_json_copy(const struct mc_json *value, struct mc_error *err) MC_CHECKED; /* deep; owned */
bool mc_json_equal(const struct mc_json *a, const struct mc_json *b);

/* --- reading; all results borrowed ----------------------------------------------------------- */

enum mc_json_type mc_json_type(const struct mc_json *value);
const char *mc_json_type_name(enum mc_json_type type); /* "string", "object", ... */
size_t mc_json_size(const struct mc_json *value);      /* members or elements, else 0 */
/* NULL when absent or not an object / array. */
const struct mc_json *mc_json_get(const struct mc_json *object, const char *key);
const struct mc_json *mc_json_at(const struct mc_json *array, size_t index);
/* Member number `index` in file order; *ret_key borrowed. NULL past the end. Counts from the first
 * member each time: for objects of more than a few hundred members walk with mc_json_next. */
const struct mc_json *mc_json_member(const struct mc_json *object, size_t index, const char **ret_key);
/* All members in file order, O(1) a step; nothing when `object` is not an object:
 *	struct mc_json_iter member = mc_json_iter(object);
 *	while (mc_json_next(&member)) ... member.key, member.value ...
 * Replacing a value keeps the walk valid, removing the current member does not. */
struct mc_json_iter {
	const struct mc_json *object;
	const char *key; /* borrowed; NUL-terminated */
	const struct mc_json *value;
	void *at; /* private */
};
struct mc_json_iter mc_json_iter(const struct mc_json *object);
bool mc_json_next(struct mc_json_iter *iter);
/* Asserted to have that type; check mc_json_type first when the input is untrusted. */
const char *mc_json_string(const struct mc_json *value, size_t *ret_length /* may be NULL */);
int64_t mc_json_integer(const struct mc_json *value);
double mc_json_number(const struct mc_json *value); /* integer or real */
bool mc_json_bool(const struct mc_json *value);
bool mc_json_is_null(const struct mc_json *value); /* also true for a NULL pointer */

/* --- making; children passed to set/append are given away ("stolen"), also on failure ---------- */

struct mc_json *mc_json_new_object(void);
struct mc_json *mc_json_new_array(void);
struct mc_json *mc_json_new_string(const char *text); /* must be valid UTF-8, else becomes NULL */
struct mc_json *mc_json_new_integer(int64_t value);
struct mc_json *mc_json_new_real(double value); /* NaN and infinities become null */
struct mc_json *mc_json_new_bool(bool value);
struct mc_json *mc_json_new_null(void);
/* The new_* calls return NULL when out of memory; set/append of NULL then fail with NO_MEMORY, so one
 * check at the set is enough. set replaces an existing key. */
bool mc_json_set(struct mc_json *object, const char *key, struct mc_json *child, struct mc_error *err)
    MC_CHECKED;
bool mc_json_append(struct mc_json *array, struct mc_json *child, struct mc_error *err) MC_CHECKED;
bool mc_json_remove(struct mc_json *object, const char *key); /* true when it was there */

enum mc_json_style {
	MC_JSON_COMPACT = 0,     /* one line, no spaces */
	MC_JSON_PRETTY = 1,      /* 2-space indent, final newline */
	MC_JSON_SORTED = 2       /* keys by code point; may be or-ed with PRETTY */
};
bool mc_json_write(const struct mc_json *value, unsigned style, struct mc_buf *out, struct mc_error *err)
    MC_CHECKED;

#endif
