/*
 * diff_parameters.c - scales and zero points of two jobs, by their names
 */
#include "diff_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "verify_parts.h"

#include "moecal/ops.h"

#define CHUNK 65536 /* elements compared together, while they are in the cache */

static bool is_number(const struct mc_st_entry *entry)
{
	return mc_dtype_is_weight(entry->dtype) || entry->dtype == MC_F8_E4M3;
}

/* Exponents are compared as the powers that they stand for. */
static bool is_exponent(const struct mc_st_entry *entry)
{
	return entry->dtype == MC_U8 && strstr(entry->name, "_scale") != NULL;
}

static uint64_t elements_of(const struct mc_st_entry *entry)
{
	return entry->bytes * 8 / mc_dtype_bits(entry->dtype);
}

static bool is_alike(const struct mc_st_entry *a, const struct mc_st_entry *b)
{
	if (a->rank != b->rank || memcmp(a->shape, b->shape, a->rank * sizeof *a->shape) != 0)
		return false;
	return a->dtype == b->dtype || (is_number(a) && is_number(b));
}

struct sums {
	double largest, sum;
	uint64_t differ;
};

static void widen(const struct mc_st_entry *entry, const void *stored, float *wide, size_t count)
{
	if (is_number(entry))
		mc_widen(entry->dtype, stored, wide, count);
	else
		mc_widen_exponents(stored, wide, count);
}

static bool compare_chunks(const struct mc_diff_work *work, const struct mc_st_entry *a,
    const struct mc_st_entry *b, struct sums *ret, struct mc_error *err)
{
	struct mc_arena *arena = work->env->arena;
	size_t mark = mc_arena_mark(arena), size_a = mc_dtype_bits(a->dtype) / 8,
	       size_b = mc_dtype_bits(b->dtype) / 8;
	bool wide = is_number(a) || (is_exponent(a) && is_exponent(b));
	void *stored_a = mc_arena_alloc(arena, CHUNK, size_a, "parameter", err);
	void *stored_b = mc_arena_alloc(arena, CHUNK, size_b, "parameter", err);
	float *wide_a = mc_arena_alloc(arena, CHUNK, sizeof *wide_a, "parameter", err);
	float *wide_b = mc_arena_alloc(arena, CHUNK, sizeof *wide_b, "parameter", err);
	uint64_t n = elements_of(a);
	bool ok = stored_a != NULL && stored_b != NULL && wide_a != NULL && wide_b != NULL;

	for (uint64_t i = 0; ok && i < n; i += CHUNK) {
		size_t count = n - i < CHUNK ? (size_t)(n - i) : CHUNK;
		double largest = 0, sum = 0;
		ok = mc_st_read(
			 &work->side[0].parameters, a, i * size_a, count * size_a, stored_a, err) &&
		     mc_st_read(
			 &work->side[1].parameters, b, i * size_b, count * size_b, stored_b, err);
		if (!ok)
			break;
		if (!wide) {
			ret->differ += mc_count_unlike(stored_a, stored_b, size_a, count);
			continue;
		}
		widen(a, stored_a, wide_a, count);
		widen(b, stored_b, wide_b, count);
		ret->differ += mc_relative_differences(wide_a, wide_b, count, &largest, &sum);
		ret->largest = fmax(ret->largest, largest);
		ret->sum += sum;
	}
	if (!wide && n > 0)
		ret->largest = ret->sum = (double)ret->differ / (double)n;
	else if (n > 0)
		ret->sum /= (double)n;
	mc_arena_rewind(arena, mark);
	return ok;
}

static bool add_pair(struct mc_diff_work *work, const struct mc_st_entry *a,
    const struct mc_st_entry *b, struct mc_error *err)
{
	struct sums sums = {0};
	size_t layer, expert;
	struct mc_json *json;

	if (!mc_env_go_on(work->env, err) || !compare_chunks(work, a, b, &sums, err))
		return false;
	layer = mc_verify_number(a->name, "layers.", &layer) ? layer : MC_NO_INDEX;
	expert = mc_verify_number(a->name, "experts.", &expert) ? expert : MC_NO_INDEX;
	json = mc_json_new_object();
	bool ok = mc_json_set(json, "name", mc_json_new_string(a->name), err) &&
		  mc_json_set(json, "relative", mc_json_new_real(sums.largest), err) &&
		  mc_json_set(json, "mean", mc_json_new_real(sums.sum), err) &&
		  mc_json_set(json, "differ", mc_json_new_integer((int64_t)sums.differ), err) &&
		  mc_json_set(json, "elements", mc_json_new_integer((int64_t)elements_of(a)), err);
	if (!ok) {
		mc_json_free(json);
		return false;
	}
	return mc_diff_add(&work->list[MC_DRIFT_SCALES], sums.largest, layer, expert, json, err);
}

static const char *form_text(const struct mc_st_entry *entry, char text[128])
{
	char shape[96];

	snprintf(text, 128, "%s %s", mc_dtype_name(entry->dtype),
	    mc_shape_text(entry->rank, entry->shape, shape, sizeof shape));
	return text;
}

static bool add_unlike(struct mc_diff_work *work, const struct mc_st_entry *a,
    const struct mc_st_entry *b, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();
	char text[128];

	return mc_json_append(work->unlike, json, err) &&
	       mc_json_set(json, "name", mc_json_new_string(a->name), err) &&
	       mc_json_set(json, "a", mc_json_new_string(form_text(a, text)), err) &&
	       mc_json_set(json, "b", mc_json_new_string(form_text(b, text)), err);
}

bool mc_diff_parameters(struct mc_diff_work *work, struct mc_error *err)
{
	const struct mc_st_file *a = &work->side[0].parameters, *b = &work->side[1].parameters;

	if (!work->side[0].has_parameters || !work->side[1].has_parameters)
		return true;
	for (size_t i = 0; i < a->count; i++) {
		const struct mc_st_entry *own = &a->entries[a->by_name[i]],
					 *other = mc_st_find(b, own->name);
		bool ok = other == NULL ? mc_diff_only(work, 0, "parameters", own->name, err)
			  : is_alike(own, other) ? add_pair(work, own, other, err)
						 : add_unlike(work, own, other, err);
		if (!ok)
			return false;
	}
	for (size_t i = 0; i < b->count; i++) {
		const char *name = b->entries[b->by_name[i]].name;
		if (mc_st_find(a, name) == NULL && !mc_diff_only(work, 1, "parameters", name, err))
			return false;
	}
	return true;
}
