/*
 * diff.c - two job folders compared: what they are, what differs, how much, where
 */
#include "diff_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/model.h"
#include "moecal/root.h"
#include "moecal/statistics.h"

#define MAX_JSON ((size_t)1 << 30)

const char *mc_drift_name(enum mc_drift drift)
{
	static const char *const names[] = {"coverage", "inputs", "scales", "error"};

	mc_assert((size_t)drift < MC_DRIFT_COUNT);
	return names[drift];
}

/* --- values ----------------------------------------------------------------------------------- */

double mc_diff_number(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	if (value == NULL ||
	    (mc_json_type(value) != MC_JSON_REAL && mc_json_type(value) != MC_JSON_INTEGER))
		return NAN;
	return mc_json_number(value);
}

size_t mc_diff_index(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	if (value == NULL || mc_json_type(value) != MC_JSON_INTEGER || mc_json_integer(value) < 0)
		return MC_NO_INDEX;
	return (size_t)mc_json_integer(value);
}

const char *mc_diff_text(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : "";
}

double mc_diff_relative(double a, double b)
{
	if (a == b)
		return 0;
	if (!isfinite(a) || !isfinite(b))
		return INFINITY;
	return fabs(a - b) / fmax(fabs(a), fabs(b));
}

bool mc_diff_add(struct mc_diff_list *list, double value, size_t layer, size_t expert,
    struct mc_json *json, struct mc_error *err)
{
	if (!mc_grow((void **)&list->items, &list->capacity, list->count + 1, sizeof *list->items,
		"differences", err)) {
		mc_json_free(json);
		return false;
	}
	/* what cannot be said is no small difference */
	list->items[list->count++] = (struct mc_diff_item){
	    isnan(value) ? INFINITY : value, layer, expert, json};
	return true;
}

bool mc_diff_only(struct mc_diff_work *work, size_t which, const char *list, const char *name,
    struct mc_error *err)
{
	return mc_json_append(
	    (struct mc_json *)mc_json_get(work->only[which], list), mc_json_new_string(name), err);
}

/* --- folders ---------------------------------------------------------------------------------- */

static struct mc_json *read_json(const char *folder, const char *name, struct mc_error *err)
{
	struct mc_json *json = NULL;
	struct mc_buf text;
	int fd = -1;
	char *path = mc_format(err, "%s/%s", folder, name);

	mc_buf_init(&text, MAX_JSON);
	if (path != NULL && mc_root_open(NULL, path, &fd, err) &&
	    mc_file_read_all(fd, path, &text, err))
		json = mc_json_parse(mc_buf_text(&text), text.length, path, err);
	mc_close(fd);
	mc_buf_release(&text);
	free(path);
	return json;
}

/* Both are there as soon as a job begins. */
static bool require_job_folder(struct mc_diff_side *side, struct mc_error *err)
{
	struct mc_error inner;
	char *path = mc_format(err, "%s/calibration.db", side->folder);

	if (path == NULL)
		return false;
	bool there = mc_file_exists(path);
	free(path);
	mc_error_init(&inner);
	side->spec = there ? read_json(side->folder, "spec.json", &inner) : NULL;
	if (there && side->spec == NULL && inner.code != MC_NOT_FOUND)
		return mc_fail(err, inner.code, inner.where, "%s", inner.text);
	return side->spec != NULL ||
	       mc_fail(err, MC_INVALID, side->folder, "is no job folder: it has no %s",
		   there ? "spec.json" : "calibration.db");
}

static bool read_statistics(struct mc_diff_side *side, struct mc_error *err)
{
	struct mc_module_filter all = {.layer = MC_NO_INDEX, .expert = MC_NO_INDEX};
	char *path = mc_format(err, "%s/calibration.db", side->folder);
	struct mc_statistics *statistics = path == NULL ? NULL
							: mc_statistics_open(path, true, err);

	bool ok = statistics != NULL &&
		  mc_statistics_layers_done(statistics, &side->layers_done, err);
	side->coverage = ok ? mc_statistics_coverage_json(statistics, 1, err) : NULL;
	side->modules = side->coverage == NULL ? NULL
					       : mc_statistics_modules_json(statistics, &all, err);
	mc_statistics_close(statistics);
	free(path);
	return side->modules != NULL;
}

/* Absent while a job is in work. */
static bool open_parameters(struct mc_diff_side *side, struct mc_error *err)
{
	struct mc_error inner;
	int fd;
	char *path = mc_format(err, "%s/quantization.safetensors", side->folder);

	if (path == NULL)
		return false;
	mc_error_init(&inner);
	bool there = mc_root_open(NULL, path, &fd, &inner);
	side->has_parameters = there && mc_st_open_fd(&side->parameters, fd, path, err);
	free(path);
	return side->has_parameters ||
	       (!there && (inner.code == MC_NOT_FOUND ||
			      mc_fail(err, inner.code, inner.where, "%s", inner.text)));
}

static bool open_side(struct mc_diff_side *side, const char *folder, struct mc_error *err)
{
	struct mc_error absent;

	side->folder = folder;
	mc_error_init(&absent);
	if (!require_job_folder(side, err))
		return false;
	side->manifest = read_json(folder, "manifest.json", &absent);
	if (side->manifest == NULL && absent.code != MC_NOT_FOUND)
		return mc_fail(err, absent.code, absent.where, "%s", absent.text);
	return read_statistics(side, err) && open_parameters(side, err);
}

static void close_side(struct mc_diff_side *side)
{
	mc_json_free(side->spec);
	mc_json_free(side->manifest);
	mc_json_free(side->modules);
	mc_json_free(side->coverage);
	if (side->has_parameters)
		mc_st_close(&side->parameters);
}

/* --- what the two jobs are -------------------------------------------------------------------- */

static const struct mc_json *model_of(const struct mc_diff_side *side)
{
	return mc_json_get(mc_json_get(side->manifest, "inputs"), "model");
}

static bool set_copy(
    struct mc_json *into, const char *key, const struct mc_json *value, struct mc_error *err)
{
	struct mc_json *copy = value == NULL ? mc_json_new_null() : mc_json_copy(value, err);

	return copy != NULL && mc_json_set(into, key, copy, err);
}

static struct mc_json *describe(const struct mc_diff_side *side, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();

	if (mc_json_set(json, "folder", mc_json_new_string(side->folder), err) &&
	    set_copy(json, "model", mc_json_get(side->spec, "model"), err) &&
	    set_copy(json, "model_sha256", mc_json_get(model_of(side), "sha256"), err) &&
	    set_copy(json, "recipe", mc_json_get(side->spec, "recipe"), err) &&
	    set_copy(json, "architecture", mc_json_get(side->manifest, "architecture"), err) &&
	    set_copy(json, "tokens", mc_json_get(side->manifest, "tokens"), err) &&
	    set_copy(json, "sequences", mc_json_get(side->manifest, "sequences"), err) &&
	    mc_json_set(
		json, "layers_done", mc_json_new_integer((int64_t)side->layers_done), err) &&
	    mc_json_set(json, "finished", mc_json_new_bool(side->manifest != NULL), err))
		return json;
	mc_json_free(json);
	return NULL;
}

static bool add_difference(struct mc_json *list, const char *key, const struct mc_json *a,
    const struct mc_json *b, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();

	return mc_json_append(list, json, err) &&
	       mc_json_set(json, "key", mc_json_new_string(key), err) &&
	       set_copy(json, "a", a, err) && set_copy(json, "b", b, err);
}

/* NULL is absent, and null is no value either. */
static bool is_same(const struct mc_json *a, const struct mc_json *b)
{
	return (mc_json_is_null(a) && mc_json_is_null(b)) ||
	       (a != NULL && b != NULL && mc_json_equal(a, b));
}

static bool compare_values(struct mc_json *list, const char *key, const struct mc_json *a,
    const struct mc_json *b, unsigned depth, struct mc_error *err);

/* Members and elements one by one, so that what differs is seen among what does not. */
static bool compare_members(struct mc_json *list, const char *prefix, const struct mc_json *a,
    const struct mc_json *b, unsigned depth, struct mc_error *err)
{
	bool ok = true;

	for (int side = 0; ok && side < 2; side++) {
		struct mc_json_iter member = mc_json_iter(side == 0 ? a : b);
		while (ok && mc_json_next(&member)) {
			if (side == 1 && mc_json_get(a, member.key) != NULL)
				continue; /* seen from the other side */
			char *key = mc_format(
			    err, "%s%s%s", prefix, prefix[0] != '\0' ? "." : "", member.key);
			ok = key != NULL && compare_values(list, key, mc_json_get(a, member.key),
						mc_json_get(b, member.key), depth, err);
			free(key);
		}
	}
	for (size_t i = 0; ok && mc_json_type(a) == MC_JSON_ARRAY && i < mc_json_size(a); i++) {
		char *key = mc_format(err, "%s.%zu", prefix, i);
		ok = key != NULL &&
		     compare_values(list, key, mc_json_at(a, i), mc_json_at(b, i), depth, err);
		free(key);
	}
	return ok;
}

static bool compare_values(struct mc_json *list, const char *key, const struct mc_json *a,
    const struct mc_json *b, unsigned depth, struct mc_error *err)
{
	if (is_same(a, b))
		return true;
	bool open = depth < 8 && a != NULL && b != NULL && mc_json_type(a) == mc_json_type(b);
	bool objects = open && mc_json_type(a) == MC_JSON_OBJECT;
	bool arrays = open && mc_json_type(a) == MC_JSON_ARRAY &&
		      mc_json_size(a) == mc_json_size(b);

	return objects || arrays ? compare_members(list, key, a, b, depth + 1, err)
				 : add_difference(list, key, a, b, err);
}

static struct mc_json *find_differences(const struct mc_diff_work *work, struct mc_error *err)
{
	static const char *const keys[] = {
	    "architecture", "tokens", "sequences", "version", "kernel", "valid"};
	const struct mc_diff_side *a = &work->side[0], *b = &work->side[1];
	struct mc_json *list = mc_json_new_array();
	bool ok = list != NULL && compare_members(list, "", a->spec, b->spec, 0, err);

	if (ok && a->manifest != NULL && b->manifest != NULL) {
		const struct mc_json *model_a = mc_json_get(model_of(a), "sha256"),
				     *model_b = mc_json_get(model_of(b), "sha256");
		const struct mc_json *data_a = mc_json_get(
					 mc_json_get(a->manifest, "inputs"), "datasets"),
				     *data_b = mc_json_get(
					 mc_json_get(b->manifest, "inputs"), "datasets");
		ok = (is_same(model_a, model_b) ||
			 add_difference(list, "model sha256", model_a, model_b, err)) &&
		     (is_same(data_a, data_b) ||
			 compare_values(list, "data", data_a, data_b, 0, err));
		for (size_t i = 0; ok && i < sizeof keys / sizeof *keys; i++) {
			const struct mc_json *own = mc_json_get(a->manifest, keys[i]),
					     *other = mc_json_get(b->manifest, keys[i]);
			ok = is_same(own, other) || add_difference(list, keys[i], own, other, err);
		}
	}
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

/* --- per layer and expert --------------------------------------------------------------------- */

struct cell {
	size_t layer, expert;
	double value[MC_DRIFT_COUNT], largest;
};

static int compare_places(const void *a, const void *b)
{
	const struct cell *x = a, *y = b;

	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	return (x->expert > y->expert) - (x->expert < y->expert);
}

static int compare_cells(const void *a, const void *b)
{
	const struct cell *x = a, *y = b;

	if (x->largest != y->largest)
		return x->largest > y->largest ? -1 : 1;
	return compare_places(a, b);
}

static void put(struct cell *cell, const struct mc_diff_item *item, size_t drift, bool experts)
{
	*cell = (struct cell){.layer = item->layer,
	    .expert = experts ? item->expert : MC_NO_INDEX,
	    .largest = item->value};
	for (size_t d = 0; d < MC_DRIFT_COUNT; d++)
		cell->value[d] = d == drift ? item->value : NAN;
}

/* All items as cells, those of one place folded into one; largest first. */
static bool fold(const struct mc_diff_work *work, bool experts, struct cell **ret,
    size_t *ret_count, struct mc_error *err)
{
	size_t most = 1 + work->layers.count, count = 0, kept = 0;

	for (size_t d = 0; d < MC_DRIFT_COUNT; d++)
		most += work->list[d].count;
	struct cell *cells = mc_alloc(most, sizeof *cells, "differences", err);
	if (cells == NULL)
		return false;
	for (size_t d = 0; d < MC_DRIFT_COUNT; d++) {
		/* of a layer's coverage all experts together have a number of their own */
		const struct mc_diff_list *list = d == MC_DRIFT_COVERAGE && !experts
						      ? &work->layers
						      : &work->list[d];
		for (size_t i = 0; i < list->count; i++)
			if (list->items[i].layer != MC_NO_INDEX &&
			    (!experts || list->items[i].expert != MC_NO_INDEX))
				put(&cells[count++], &list->items[i], d, experts);
	}
	qsort(cells, count, sizeof *cells, compare_places);
	for (size_t i = 0; i < count; i++) {
		if (kept == 0 || compare_places(&cells[kept - 1], &cells[i]) != 0) {
			cells[kept++] = cells[i];
			continue;
		}
		struct cell *into = &cells[kept - 1];
		into->largest = fmax(into->largest, cells[i].largest);
		for (size_t d = 0; d < MC_DRIFT_COUNT; d++)
			into->value[d] = fmax(into->value[d], cells[i].value[d]);
	}
	qsort(cells, kept, sizeof *cells, compare_cells);
	*ret = cells;
	*ret_count = kept;
	return true;
}

static struct mc_json *cells_json(
    const struct mc_diff_work *work, bool experts, struct mc_error *err)
{
	struct mc_json *list = mc_json_new_array();
	struct cell *cells = NULL;
	size_t count = 0;
	bool ok = list != NULL && fold(work, experts, &cells, &count, err);

	for (size_t i = 0; ok && i < count; i++) {
		struct mc_json *json = mc_json_new_object();
		ok = mc_json_append(list, json, err) &&
		     mc_json_set(
			 json, "layer", mc_json_new_integer((int64_t)cells[i].layer), err) &&
		     (!experts || mc_json_set(json, "expert",
				      mc_json_new_integer((int64_t)cells[i].expert), err));
		for (size_t d = 0; ok && d < MC_DRIFT_COUNT; d++)
			ok = mc_json_set(json, mc_drift_name((enum mc_drift)d),
			    mc_json_new_real(cells[i].value[d]), err);
		ok = ok && mc_json_set(json, "largest", mc_json_new_real(cells[i].largest), err);
	}
	free(cells);
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

/* --- the document ----------------------------------------------------------------------------- */

static int compare_items(const void *a, const void *b)
{
	const struct mc_diff_item *x = a, *y = b;

	if (x->value != y->value)
		return x->value > y->value ? -1 : 1;
	if (x->layer != y->layer)
		return x->layer < y->layer ? -1 : 1;
	if (x->expert != y->expert)
		return x->expert < y->expert ? -1 : 1;
	return strcmp(mc_diff_text(x->json, "name"), mc_diff_text(y->json, "name"));
}

static struct mc_json *list_json(struct mc_diff_list *list, struct mc_error *err)
{
	struct mc_json *array = mc_json_new_array();

	if (list->count > 0)
		qsort(list->items, list->count, sizeof *list->items, compare_items);
	for (size_t i = 0; i < list->count; i++) {
		struct mc_json *json = list->items[i].json;
		list->items[i].json = NULL; /* the array's, also when there is no memory */
		if (!mc_json_append(array, json, err)) {
			mc_json_free(array);
			return NULL;
		}
	}
	return array;
}

static double largest_of(const struct mc_diff_work *work, size_t drift)
{
	const struct mc_diff_list *list = drift == MC_DRIFT_COVERAGE ? &work->layers
								     : &work->list[drift];
	double largest = NAN; /* nothing was compared */

	for (size_t i = 0; i < list->count; i++)
		largest = fmax(largest, list->items[i].value);
	return largest;
}

static bool is_within(const struct mc_diff_work *work, double threshold)
{
	static const char *const lists[] = {"layers", "modules", "parameters"};
	bool within = mc_json_size(work->unlike) == 0;

	for (size_t d = 0; d < MC_DRIFT_COUNT; d++)
		within = within && !(largest_of(work, d) > threshold);
	for (size_t i = 0; i < 2; i++)
		for (size_t k = 0; k < sizeof lists / sizeof *lists; k++)
			within = within && mc_json_size(mc_json_get(work->only[i], lists[k])) == 0;
	return within && work->side[0].has_parameters == work->side[1].has_parameters;
}

static struct mc_json *largest_json(const struct mc_diff_work *work, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();

	for (size_t d = 0; d < MC_DRIFT_COUNT; d++)
		if (!mc_json_set(json, mc_drift_name((enum mc_drift)d),
			mc_json_new_real(largest_of(work, d)), err)) {
			mc_json_free(json);
			return NULL;
		}
	return json;
}

static struct mc_json *document(
    struct mc_diff_work *work, double threshold, bool within, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();
	bool judged = threshold >= 0;

	bool ok = mc_json_set(root, "a", describe(&work->side[0], err), err) &&
		  mc_json_set(root, "b", describe(&work->side[1], err), err) &&
		  mc_json_set(root, "differences", find_differences(work, err), err) &&
		  mc_json_set(root, "largest", largest_json(work, err), err) &&
		  mc_json_set(root, "layers", cells_json(work, false, err), err) &&
		  mc_json_set(root, "experts", cells_json(work, true, err), err) &&
		  mc_json_set(
		      root, "coverage", list_json(&work->list[MC_DRIFT_COVERAGE], err), err) &&
		  mc_json_set(root, "inputs", list_json(&work->list[MC_DRIFT_INPUTS], err), err) &&
		  mc_json_set(root, "scales", list_json(&work->list[MC_DRIFT_SCALES], err), err) &&
		  mc_json_set(root, "errors", list_json(&work->list[MC_DRIFT_ERROR], err), err) &&
		  set_copy(root, "unlike", work->unlike, err) &&
		  set_copy(root, "only_a", work->only[0], err) &&
		  set_copy(root, "only_b", work->only[1], err) &&
		  mc_json_set(root, "threshold",
		      judged ? mc_json_new_real(threshold) : mc_json_new_null(), err) &&
		  mc_json_set(
		      root, "within", judged ? mc_json_new_bool(within) : mc_json_new_null(), err);
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}

static struct mc_json *new_only(struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();

	if (mc_json_set(json, "layers", mc_json_new_array(), err) &&
	    mc_json_set(json, "modules", mc_json_new_array(), err) &&
	    mc_json_set(json, "parameters", mc_json_new_array(), err))
		return json;
	mc_json_free(json);
	return NULL;
}

static void release_list(struct mc_diff_list *list)
{
	for (size_t i = 0; i < list->count; i++)
		mc_json_free(list->items[i].json);
	free(list->items);
}

bool mc_diff(const char *a, const char *b, double threshold, const struct mc_env *env,
    struct mc_json **ret_document, bool *ret_within, struct mc_error *err)
{
	struct mc_diff_work work = {.env = env};

	*ret_document = NULL;
	work.unlike = mc_json_new_array();
	work.only[0] = new_only(err);
	work.only[1] = work.only[0] == NULL ? NULL : new_only(err);
	bool ok = work.unlike != NULL && work.only[1] != NULL && open_side(&work.side[0], a, err) &&
		  open_side(&work.side[1], b, err) && mc_diff_coverage(&work, err) &&
		  mc_diff_modules(&work, err) && mc_diff_parameters(&work, err);
	if (ok) {
		*ret_within = threshold < 0 || is_within(&work, threshold);
		*ret_document = document(&work, threshold, *ret_within, err);
	}
	for (size_t i = 0; i < 2; i++)
		close_side(&work.side[i]);
	for (size_t d = 0; d < MC_DRIFT_COUNT; d++)
		release_list(&work.list[d]);
	release_list(&work.layers);
	mc_json_free(work.unlike);
	mc_json_free(work.only[0]);
	mc_json_free(work.only[1]);
	return *ret_document != NULL;
}
