/*
 * diff_modules.c - what two calibration.db say of the same experts and linears
 */
#include "diff_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/model.h"

/* --- coverage --------------------------------------------------------------------------------- */

static const struct mc_json *find_by_index(
    const struct mc_json *list, const char *key, size_t index)
{
	for (size_t i = 0; index != MC_NO_INDEX && i < mc_json_size(list); i++)
		if (mc_diff_index(mc_json_at(list, i), key) == index)
			return mc_json_at(list, i);
	return NULL;
}

static bool set_copy(struct mc_json *into, const char *key, const struct mc_json *from,
    const char *from_key, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(from, from_key);
	struct mc_json *copy = value == NULL ? mc_json_new_null() : mc_json_copy(value, err);

	return copy != NULL && mc_json_set(into, key, copy, err);
}

static bool add_expert(struct mc_diff_work *work, size_t layer, size_t expert,
    const struct mc_json *a, const struct mc_json *b, double *sum, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();
	double moved = fabs(mc_diff_number(a, "share") - mc_diff_number(b, "share"));
	bool ok = mc_json_set(json, "layer", mc_json_new_integer((int64_t)layer), err) &&
		  mc_json_set(json, "expert", mc_json_new_integer((int64_t)expert), err) &&
		  mc_json_set(json, "difference", mc_json_new_real(moved), err) &&
		  set_copy(json, "share_a", a, "share", err) &&
		  set_copy(json, "share_b", b, "share", err) &&
		  set_copy(json, "routed_a", a, "routed", err) &&
		  set_copy(json, "routed_b", b, "routed", err) &&
		  set_copy(json, "source_a", a, "source", err) &&
		  set_copy(json, "source_b", b, "source", err);

	*sum += moved;
	if (ok)
		return mc_diff_add(&work->list[MC_DRIFT_COVERAGE], moved, layer, expert, json, err);
	mc_json_free(json);
	return false;
}

static bool add_layer(struct mc_diff_work *work, size_t layer, const struct mc_json *a,
    const struct mc_json *b, struct mc_error *err)
{
	const struct mc_json *experts_a = mc_json_get(a, "experts"),
			     *experts_b = mc_json_get(b, "experts");
	double sum = 0;

	for (size_t i = 0; i < mc_json_size(experts_a); i++) {
		const struct mc_json *own = mc_json_at(experts_a, i);
		size_t expert = mc_diff_index(own, "expert");
		const struct mc_json *other = find_by_index(experts_b, "expert", expert);
		if (other != NULL && !add_expert(work, layer, expert, own, other, &sum, err))
			return false;
	}
	return mc_diff_add(&work->layers, sum / 2, layer, MC_NO_INDEX, NULL, err);
}

/* What one side knows of layers and the other does not. */
static bool note_layer(
    struct mc_diff_work *work, size_t which, const struct mc_json *layer, struct mc_error *err)
{
	return mc_diff_only(work, which, "layers", mc_diff_text(layer, "name"), err);
}

bool mc_diff_coverage(struct mc_diff_work *work, struct mc_error *err)
{
	const struct mc_json *a = mc_json_get(work->side[0].coverage, "layers"),
			     *b = mc_json_get(work->side[1].coverage, "layers");

	for (size_t i = 0; i < mc_json_size(a); i++) {
		const struct mc_json *own = mc_json_at(a, i);
		size_t layer = mc_diff_index(own, "index");
		const struct mc_json *other = find_by_index(b, "index", layer);
		if (other == NULL ? !note_layer(work, 0, own, err)
				  : !add_layer(work, layer, own, other, err))
			return false;
	}
	for (size_t i = 0; i < mc_json_size(b); i++) {
		const struct mc_json *own = mc_json_at(b, i);
		if (find_by_index(a, "index", mc_diff_index(own, "index")) == NULL &&
		    !note_layer(work, 1, own, err))
			return false;
	}
	return true;
}

/* --- linears ---------------------------------------------------------------------------------- */

struct rows {
	size_t count;
	const struct mc_json **list; /* sorted by name; owned */
};

static int compare_rows(const void *a, const void *b)
{
	return strcmp(mc_diff_text(*(const struct mc_json *const *)a, "name"),
	    mc_diff_text(*(const struct mc_json *const *)b, "name"));
}

static bool sort_rows(const struct mc_json *modules, struct rows *ret, struct mc_error *err)
{
	ret->count = mc_json_size(modules);
	ret->list = mc_alloc(ret->count + 1, sizeof *ret->list, "modules", err);
	if (ret->list == NULL)
		return false;
	for (size_t i = 0; i < ret->count; i++)
		ret->list[i] = mc_json_at(modules, i);
	qsort(ret->list, ret->count, sizeof *ret->list, compare_rows);
	return true;
}

/* What both entries of a linear begin with. */
static struct mc_json *new_entry(
    const struct mc_json *a, const char *key, double value, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();

	if (set_copy(json, "name", a, "name", err) && set_copy(json, "layer", a, "layer", err) &&
	    set_copy(json, "expert", a, "expert", err) && set_copy(json, "role", a, "role", err) &&
	    mc_json_set(json, key, mc_json_new_real(value), err))
		return json;
	mc_json_free(json);
	return NULL;
}

static bool compare_inputs(struct mc_diff_work *work, const struct mc_json *a,
    const struct mc_json *b, struct mc_error *err)
{
	static const char *const keys[] = {"input_min", "input_max", "input_absmax"};
	static const char *const named[][2] = {
	    {"min_a", "min_b"}, {"max_a", "max_b"}, {"absmax_a", "absmax_b"}};
	double larger = fmax(mc_diff_number(a, keys[2]), mc_diff_number(b, keys[2])), worst = 0;

	/* without text no input was seen */
	if (isnan(mc_diff_number(a, keys[2])) || isnan(mc_diff_number(b, keys[2])))
		return true;
	for (size_t k = 0; k < 3; k++) {
		double d = fabs(mc_diff_number(a, keys[k]) - mc_diff_number(b, keys[k]));
		worst = fmax(worst, d == 0 ? 0 : d / larger);
	}
	struct mc_json *json = new_entry(a, "relative", worst, err);
	bool ok = json != NULL;
	for (size_t k = 0; ok && k < 3; k++)
		ok = set_copy(json, named[k][0], a, keys[k], err) &&
		     set_copy(json, named[k][1], b, keys[k], err);
	if (ok)
		return mc_diff_add(&work->list[MC_DRIFT_INPUTS], worst, mc_diff_index(a, "layer"),
		    mc_diff_index(a, "expert"), json, err);
	mc_json_free(json);
	return false;
}

static bool compare_errors(struct mc_diff_work *work, const struct mc_json *a,
    const struct mc_json *b, struct mc_error *err)
{
	static const char key[] = "error_relative";
	double own = mc_diff_number(a, key), other = mc_diff_number(b, key);

	if (isnan(own) || isnan(other))
		return true;
	double relative = mc_diff_relative(own, other);
	struct mc_json *json = new_entry(a, "relative", relative, err);
	if (json != NULL && set_copy(json, "error_a", a, key, err) &&
	    set_copy(json, "error_b", b, key, err) &&
	    set_copy(json, "algorithm_a", a, "algorithm", err) &&
	    set_copy(json, "algorithm_b", b, "algorithm", err))
		return mc_diff_add(&work->list[MC_DRIFT_ERROR], relative, mc_diff_index(a, "layer"),
		    mc_diff_index(a, "expert"), json, err);
	mc_json_free(json);
	return false;
}

bool mc_diff_modules(struct mc_diff_work *work, struct mc_error *err)
{
	struct rows a = {0}, b = {0};
	size_t i = 0, j = 0;
	bool ok = sort_rows(work->side[0].modules, &a, err) &&
		  sort_rows(work->side[1].modules, &b, err);

	while (ok && (i < a.count || j < b.count)) {
		int order = i == a.count   ? 1
			    : j == b.count ? -1
					   : compare_rows(&a.list[i], &b.list[j]);
		if (order == 0) {
			ok = compare_inputs(work, a.list[i], b.list[j], err) &&
			     compare_errors(work, a.list[i], b.list[j], err);
			i++;
			j++;
		} else if (order < 0) {
			ok = mc_diff_only(
			    work, 0, "modules", mc_diff_text(a.list[i++], "name"), err);
		} else {
			ok = mc_diff_only(
			    work, 1, "modules", mc_diff_text(b.list[j++], "name"), err);
		}
	}
	free(a.list);
	free(b.list);
	return ok;
}
