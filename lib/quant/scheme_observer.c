/*
 * scheme_observer.c - observers by name and the arguments that they take
 */
#include "scheme_parse.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

enum argument {
	AVERAGING_CONSTANT,
	EXPAND,
	GRID,
	MAXSHRINK,
	NORM,
	PATIENCE,
	STRICT,
	TRITON_ERROR_BUFFER
};
#define BIT(argument) (1u << (argument))
#define SEARCH (BIT(EXPAND) | BIT(GRID) | BIT(MAXSHRINK) | BIT(NORM) | BIT(PATIENCE))

static const char *const arguments[] = {
    [AVERAGING_CONSTANT] = "averaging_constant",
    [EXPAND] = "expand",
    [GRID] = "grid",
    [MAXSHRINK] = "maxshrink",
    [NORM] = "norm",
    [PATIENCE] = "patience",
    [STRICT] = "strict",
    [TRITON_ERROR_BUFFER] = "triton_error_buffer",
};

/* The order is the one that messages list them in. */
static const struct observer {
	const char *name;
	unsigned arguments;
} observers[] = {
    {"memoryless_minmax", 0},
    {"static_minmax", 0},
    {"minmax", BIT(AVERAGING_CONSTANT)},
    {"memoryless_mse", SEARCH | BIT(TRITON_ERROR_BUFFER)},
    {"mse", SEARCH | BIT(TRITON_ERROR_BUFFER) | BIT(AVERAGING_CONSTANT)},
    {"nvfp4_expanded_mse", SEARCH | BIT(TRITON_ERROR_BUFFER)},
    {"fouroversix", SEARCH | BIT(TRITON_ERROR_BUFFER)},
    {"imatrix_mse", SEARCH | BIT(STRICT)},
    {"nvfp4_expanded_imatrix", SEARCH | BIT(STRICT)},
};

static bool same_observer(const char *a, const char *b)
{
	char name[64];
	size_t n = strlen(a);

	if (n >= sizeof name)
		return false;
	for (size_t i = 0; i <= n; i++)
		name[i] = (char)(a[i] == '-' || a[i] == ' ' ? '_' : a[i]);
	return mc_equal_folded(name, b);
}

static const struct observer *find_observer(const char *name)
{
	for (size_t i = 0; i < COUNT(observers); i++)
		if (same_observer(name, observers[i].name))
			return &observers[i];
	return NULL;
}

const char *mc_observer_known(const char *name)
{
	const struct observer *observer = find_observer(name);

	return observer == NULL ? NULL : observer->name;
}

void mc_observer_unknown(const char *where, const char *name, struct mc_problems *problems)
{
	const char *names[COUNT(observers)];

	for (size_t i = 0; i < COUNT(observers); i++)
		names[i] = observers[i].name;
	mc_name_unknown(where, "observer", name, names, COUNT(observers), problems);
}

/* --- arguments -------------------------------------------------------------------------------- */

static bool in_range(enum argument argument, double x, const char **ret_needed)
{
	switch (argument) {
	case AVERAGING_CONSTANT:
	case MAXSHRINK:
		*ret_needed = "a number from 0 to 1";
		return x >= 0 && x <= 1;
	case EXPAND:
		*ret_needed = "a number of at least 1";
		return x >= 1 && isfinite(x);
	case GRID:
	case NORM:
		*ret_needed = "a number above 0";
		return x > 0 && isfinite(x);
	case PATIENCE:
	case TRITON_ERROR_BUFFER:
		*ret_needed = "a number of at least 0";
		return x >= 0 && isfinite(x);
	case STRICT:
		break;
	}
	*ret_needed = "true or false";
	return false;
}

static void check_argument(
    const struct mc_field *field, enum argument argument, struct mc_problems *problems)
{
	enum mc_json_type type = mc_json_type(field->value);
	bool number = type == MC_JSON_INTEGER || type == MC_JSON_REAL;
	const char *needed;
	bool fits = in_range(argument, number ? mc_json_number(field->value) : 0, &needed);

	if (argument == STRICT ? type != MC_JSON_BOOL : !number)
		mc_field_wrong_type(field, needed, problems);
	else if (argument != STRICT && !fits)
		mc_problems_add(problems, field->where, "is %g; needed %s",
		    mc_json_number(field->value), needed);
}

void mc_observer_check_arguments(const struct mc_field *kwargs, struct mc_problems *problems)
{
	mc_keys_require(kwargs->value, kwargs->where, arguments, COUNT(arguments), problems);
	for (size_t i = 0; i < COUNT(arguments); i++) {
		struct mc_field field = mc_field_get(kwargs->value, kwargs->where, arguments[i]);
		if (field.value != NULL)
			check_argument(&field, (enum argument)i, problems);
	}
}

void mc_observer_check_use(
    const struct mc_field *kwargs, const char *observer, struct mc_problems *problems)
{
	const struct observer *row = find_observer(observer);
	char list[160] = "";
	size_t used = 0;

	if (row == NULL)
		return;
	for (size_t i = 0; i < COUNT(arguments) && used < sizeof list; i++)
		if (row->arguments & BIT(i))
			used += (size_t)snprintf(list + used, sizeof list - used, "%s%s",
			    used > 0 ? ", " : "", arguments[i]);
	for (size_t i = 0; i < COUNT(arguments); i++) {
		struct mc_field field = mc_field_get(kwargs->value, kwargs->where, arguments[i]);
		if (field.value != NULL && !(row->arguments & BIT(i)))
			mc_problems_add(problems, field.where,
			    "observer '%s' has no such argument; it has %s", row->name,
			    used > 0 ? list : "none");
	}
}
