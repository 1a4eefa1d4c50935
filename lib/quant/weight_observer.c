/*
 * weight_observer.c - which observer a scheme names, with its arguments
 */
#include "moecal/weight_observer.h"

#include <math.h>
#include <string.h>

#include "scheme_parse.h"

#define MOST_STEPS 10000.0

/* Defaults by name. maxshrink is the share of the range that may be cut off; 0.5556 and so on are
 * what brings a range of 1.8 times its size down to 0.8 of it. */
static const struct known {
	const char *name;
	enum mc_search search;
	double maxshrink, norm, expand, grid, patience;
} known[] = {
    {"minmax", MC_SEARCH_NONE, 0, 0, 1, 1, 0},
    {"static_minmax", MC_SEARCH_NONE, 0, 0, 1, 1, 0},
    {"memoryless_minmax", MC_SEARCH_NONE, 0, 0, 1, 1, 0},
    {"mse", MC_SEARCH_MSE, 0.20, 2.4, 1, 100, 5},
    {"memoryless_mse", MC_SEARCH_MSE, 0.20, 2.4, 1, 100, 5},
    {"nvfp4_expanded_mse", MC_SEARCH_MSE, 1 - 0.8 / 1.8, 2.4, 1.8, 200, 1000},
    {"fouroversix", MC_SEARCH_MSE, 1 - 0.8 / 1.8, 2.4, 1.8, 200, 1000},
    {"imatrix_mse", MC_SEARCH_IMATRIX, 0.95, 3.0, 1, 20, 5},
    {"nvfp4_expanded_imatrix", MC_SEARCH_IMATRIX, 1 - 0.8 / 1.8, 2.4, 1.8, 200, 1000},
};

static const struct known *find_known(const char *observer)
{
	const char *name = observer[0] == '\0' ? "memoryless_minmax" : mc_observer_known(observer);

	for (size_t i = 0; name != NULL && i < sizeof known / sizeof *known; i++)
		if (strcmp(known[i].name, name) == 0)
			return &known[i];
	return NULL;
}

/* A number from least to most, or what is there already. */
static bool read_argument(const struct mc_quant_args *args, const char *key, double least,
    double most, bool whole, double *value, const char *where, struct mc_error *err)
{
	const struct mc_json *json = args->observer_kwargs == NULL
					 ? NULL
					 : mc_json_get(args->observer_kwargs, key);

	if (json == NULL)
		return true;
	if (mc_json_type(json) != MC_JSON_INTEGER && mc_json_type(json) != MC_JSON_REAL)
		return mc_fail(err, MC_INVALID, where, "observer_kwargs: %s of %s is no number",
		    key, args->observer);
	double number = mc_json_number(json);
	if (!(number >= least && number <= most) || (whole && number != floor(number)))
		return mc_fail(err, MC_INVALID, where,
		    "observer_kwargs: %s of %s is %g; needed %s from %g to %g", key, args->observer,
		    number, whole ? "a whole number" : "a number", least, most);
	*value = number;
	return true;
}

static bool read_strict(const struct mc_quant_args *args, struct mc_weight_observer *observer,
    const char *where, struct mc_error *err)
{
	const struct mc_json *json = args->observer_kwargs == NULL
					 ? NULL
					 : mc_json_get(args->observer_kwargs, "strict");

	if (json == NULL)
		return true;
	if (mc_json_type(json) != MC_JSON_BOOL)
		return mc_fail(err, MC_INVALID, where,
		    "observer_kwargs: strict of %s is no true or false", args->observer);
	observer->strict = mc_json_bool(json);
	return true;
}

/* Steps as the reference counts them: int(maxshrink * grid), and of imatrix one more, at least 2.
 */
static unsigned count_steps(enum mc_search search, double maxshrink, double grid)
{
	double whole = floor(maxshrink * grid);

	if (search == MC_SEARCH_IMATRIX)
		return (unsigned)(whole < 1 ? 2 : whole + 1);
	return (unsigned)whole;
}

bool mc_weight_observer_make(struct mc_weight_observer *observer, const struct mc_quant_args *args,
    const char *where, struct mc_error *err)
{
	const struct known *row = find_known(args->observer);
	double maxshrink, norm, expand, grid, patience;

	if (row == NULL)
		return mc_fail(
		    err, MC_UNSUPPORTED, where, "observer '%s' is not there", args->observer);
	maxshrink = row->maxshrink;
	norm = row->norm;
	expand = row->expand;
	grid = row->grid;
	patience = row->patience;
	*observer = (struct mc_weight_observer){.search = row->search,
	    .averages = strcmp(row->name, "minmax") == 0 || strcmp(row->name, "mse") == 0};
	if (row->search != MC_SEARCH_NONE &&
	    (!read_argument(args, "maxshrink", 0, 1, false, &maxshrink, where, err) ||
		!read_argument(args, "norm", 0x1p-20, 1000, false, &norm, where, err) ||
		!read_argument(args, "expand", 1, 1000, false, &expand, where, err) ||
		!read_argument(args, "grid", 1, MOST_STEPS, true, &grid, where, err) ||
		!read_argument(args, "patience", 0, INT32_MAX, true, &patience, where, err) ||
		!read_strict(args, observer, where, err)))
		return false;
	observer->norm = norm;
	observer->expand = expand;
	observer->grid = (unsigned)grid;
	observer->patience = (unsigned)patience;
	if (row->search != MC_SEARCH_NONE)
		observer->steps = count_steps(row->search, maxshrink, grid);
	return true;
}

void mc_weight_observer_range(const struct mc_weight_observer *observer, enum mc_dtype dt,
    unsigned step, float *min, float *max)
{
	float expand = (float)observer->expand;
	float p = (float)(1.0 - (double)step / observer->grid);

	if (observer->search == MC_SEARCH_NONE)
		return;
	*min = mc_round_to(dt, mc_round_to(dt, *min * expand) * p);
	*max = mc_round_to(dt, mc_round_to(dt, *max * expand) * p);
}
