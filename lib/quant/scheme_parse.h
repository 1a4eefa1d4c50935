/*
 * scheme_parse.h - what the files that read schemes share
 */
#ifndef MC_SCHEME_PARSE_H
#define MC_SCHEME_PARSE_H

#include "moecal/problems.h"
#include "moecal/scheme.h"

/* Where problems go and how strict to be. */
struct mc_scheme_reader {
	struct mc_problems *problems;
	/* Of a checkpoint that somebody wrote: unknown keys and observers are passed over,
	 * orderings that can no longer be asked for are kept, a missing scale_dtype is what the
	 * format means. */
	bool written;
};

/* The value at `key` of an object that lies at `pointer`; `where` is the pointer to it. */
struct mc_field {
	const struct mc_json *value; /* NULL when the key is absent */
	char where[160];
};
struct mc_field mc_field_get(const struct mc_json *object, const char *pointer, const char *key);
/* "is a string; needed an object" at the field. */
void mc_field_wrong_type(
    const struct mc_field *field, const char *needed, struct mc_problems *problems);
/* Complains about every key of `object` that is not in `known`. */
void mc_keys_require(const struct mc_json *object, const char *pointer, const char *const *known,
    size_t count, struct mc_problems *problems);
/* "unknown WHAT 'x'; did you mean 'y'?" or the list of the known names. */
void mc_name_unknown(const char *where, const char *what, const char *name,
    const char *const *known, size_t count, struct mc_problems *problems);
/* A list of strings (`or_one`: or a string that is the only one), appended as owned copies; what is
 * of another type is a problem. Returns false only when out of memory. */
bool mc_strings_read(const struct mc_field *field, bool or_one, char ***list, size_t *count,
    struct mc_problems *problems, struct mc_error *err) MC_CHECKED;
void mc_strings_free(char **list, size_t count);

/* Equal when A to Z are taken as a to z. */
bool mc_equal_folded(const char *a, const char *b);

/* Values as the reference coerces them; false: cannot be one. Integers: also true, 4.0, "4", " +4
 * ", "1_000", "4.0". Booleans: also 0, 1, "yes", "off", "t", ... Numbers: what a float is read
 * from. */
bool mc_integer_read(const struct mc_json *value, int64_t *ret);
bool mc_integer_parse(const char *text, bool fraction, int64_t *ret);
bool mc_bool_read(const struct mc_json *value, bool *ret);
bool mc_number_read(const struct mc_json *value);

/* All read functions return false only when out of memory; what is wrong is added to the problems.
 */
bool mc_quant_args_read(struct mc_quant_args *args, const struct mc_json *json, const char *pointer,
    const struct mc_scheme_reader *reader, struct mc_error *err) MC_CHECKED;
void mc_quant_args_release(struct mc_quant_args *args);
/* Copies with an observer_kwargs of its own, {} where there is none. */
bool mc_quant_args_copy(
    struct mc_quant_args *args, const struct mc_quant_args *from, struct mc_error *err) MC_CHECKED;

/* A known observer's name in its usual spelling ("minmax"), NULL when unknown. Case does not count;
 * '-', ' ' and '_' are the same. */
const char *mc_observer_known(const char *name);
void mc_observer_unknown(const char *where, const char *name, struct mc_problems *problems);
/* Names and ranges of the arguments of any observer. */
void mc_observer_check_arguments(const struct mc_field *kwargs, struct mc_problems *problems);
/* Whether `observer` has a use for each of them. */
void mc_observer_check_use(
    const struct mc_field *kwargs, const char *observer, struct mc_problems *problems);

/* What activations cannot have; `kv`: those that a cache keeps. */
enum mc_activation { MC_ACTIVATION_INPUT, MC_ACTIVATION_OUTPUT, MC_ACTIVATION_KV };
void mc_activation_check(const struct mc_quant_args *args, enum mc_activation kind,
    const char *where, struct mc_problems *problems);

/* Args at `key` when there are any. */
bool mc_args_member_read(const struct mc_json *json, const char *pointer, const char *key,
    struct mc_quant_args *args, bool *ret_has, const struct mc_scheme_reader *reader,
    struct mc_error *err) MC_CHECKED;

bool mc_format_find(const char *name, enum mc_format *ret);
bool mc_format_is_legacy(const char *name);

/* One config group as an object. */
bool mc_scheme_read(struct mc_scheme *scheme, const char *name, const struct mc_json *json,
    const char *pointer, const struct mc_scheme_reader *reader, struct mc_error *err) MC_CHECKED;
/* The preset, which must exist, under a group's name, without targets. */
bool mc_scheme_make(struct mc_scheme *scheme, const char *name, const char *preset,
    struct mc_error *err) MC_CHECKED;
void mc_scheme_release(struct mc_scheme *scheme);
void mc_preset_unknown(const char *where, const char *name, struct mc_problems *problems);

/* The value of "config_groups". */
bool mc_config_groups_read(struct mc_quant_config *config, const struct mc_field *field,
    const struct mc_scheme_reader *reader, struct mc_error *err) MC_CHECKED;
/* Room for one more group. */
struct mc_scheme *mc_quant_config_add(
    struct mc_quant_config *config, struct mc_error *err) MC_CHECKED;

#endif
