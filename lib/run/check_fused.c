/*
 * check_fused.c - whether linears that engines merge have the same global scales
 *
 * Linears are found by their names, as engines find them: those of one parent. So a checkpoint can
 * be checked without its model being known.
 */
#include "check_module.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#define MOST_MEMBERS 3

static const char *const tuples[][MOST_MEMBERS] = {
    {"gate_proj", "up_proj", NULL},
    {"q_proj", "k_proj", "v_proj"},
    {"q_a_proj", "kv_a_proj_with_mqa", NULL},
    {"w1", "w3", NULL},
};

/* The tuple whose first member the module is. */
static const char *const *tuple_of(const char *last)
{
	for (size_t t = 0; t < sizeof tuples / sizeof *tuples; t++)
		if (strcmp(last, tuples[t][0]) == 0)
			return tuples[t];
	return NULL;
}

static const struct mc_st_entry *find_tensor(const struct mc_tensor_source *source,
    const char *parent, int length, const char *module, const char *suffix, char **ret_name,
    struct mc_error *err)
{
	*ret_name = mc_format(err, "%.*s%s.%s", length, parent, module, suffix);
	return *ret_name == NULL ? NULL : mc_source_find(source, *ret_name);
}

/* A global scale of one member; false in *ret_there when it has none of the right form. */
static bool read_global(const struct mc_tensor_source *source, const char *parent, int length,
    const char *module, const char *suffix, float *ret, bool *ret_there, struct mc_error *err)
{
	char *name;
	const struct mc_st_entry *entry = find_tensor(
	    source, parent, length, module, suffix, &name, err);
	bool ok = name != NULL;

	*ret_there = entry != NULL && entry->dtype == MC_F32 && entry->bytes == sizeof *ret;
	if (*ret_there)
		ok = mc_source_read(source, name, ret, err);
	free(name);
	return ok;
}

/* Whether a linear of this name is there at all, quantized or not. */
static bool is_there(const struct mc_tensor_source *source, const char *parent, int length,
    const char *module, bool *ret, struct mc_error *err)
{
	static const char *const suffixes[] = {"weight", "weight_packed"};

	*ret = false;
	for (size_t i = 0; i < 2 && !*ret; i++) {
		char *name;
		*ret = find_tensor(source, parent, length, module, suffixes[i], &name, err) != NULL;
		if (name == NULL)
			return false;
		free(name);
	}
	return true;
}

static bool check_tuple(struct mc_verdict *verdict, const struct mc_tensor_source *source,
    const char *parent, int length, const char *const *tuple, const char *suffix,
    struct mc_error *err)
{
	bool required = strcmp(suffix, "weight_global_scale") == 0;
	bool there, has_any = false;
	size_t first = 0;
	float scale = 0, other;

	for (size_t i = 0; i < MOST_MEMBERS && tuple[i] != NULL && !has_any; i++) {
		if (!read_global(source, parent, length, tuple[i], suffix, &scale, &has_any, err))
			return false;
		first = i;
	}
	for (size_t i = 0; has_any && i < MOST_MEMBERS && tuple[i] != NULL; i++) {
		if (i == first)
			continue;
		if (!read_global(source, parent, length, tuple[i], suffix, &other, &there, err))
			return false;
		if (there && memcmp(&scale, &other, sizeof scale) == 0) {
			mc_verdict_pass(verdict, MC_CHECK_FUSED, 1);
		} else if (there) {
			mc_verdict_fail(verdict, MC_CHECK_FUSED,
			    "%.*s%s.%s is %.9g, %.*s%s.%s is %.9g: engines merge the two", length,
			    parent, tuple[first], suffix, (double)scale, length, parent, tuple[i],
			    suffix, (double)other);
		} else if (required) {
			if (!is_there(source, parent, length, tuple[i], &there, err))
				return false;
			if (there)
				mc_verdict_fail(verdict, MC_CHECK_FUSED,
				    "%.*s%s has no %s, %s has one: engines merge the two", length,
				    parent, tuple[i], suffix, tuple[first]);
		}
	}
	return true;
}

bool mc_check_fused(struct mc_verdict *verdict, const char *name,
    const struct mc_tensor_source *source, struct mc_error *err)
{
	const char *dot = strrchr(name, '.');
	const char *const *tuple = tuple_of(dot == NULL ? name : dot + 1);
	int length = dot == NULL ? 0 : (int)(dot + 1 - name);

	return tuple == NULL ||
	       (check_tuple(verdict, source, name, length, tuple, "weight_global_scale", err) &&
		   check_tuple(verdict, source, name, length, tuple, "input_global_scale", err));
}
