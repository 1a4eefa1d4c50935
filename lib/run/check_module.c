/*
 * check_module.c - see check_module.h
 *
 * The bound: rounding moves a value by at most half a step (asymmetric: a whole one, because the
 * zero point is rounded as well; floats: half of their local spacing), and every operation in dt
 * adds a relative rounding of dt. Where the observer may cut the range (a search, MX scales), a
 * value past the last code has that code's value. A value further away than that was not quantized
 * with these scales.
 */
#include "check_module.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/ops.h"

const struct mc_st_entry *mc_source_find(const struct mc_tensor_source *source, const char *name)
{
	const struct mc_st_file *file;

	if (source->parts != NULL)
		return mc_parts_find(source->parts, name, &file);
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(source->checkpoint, name);
	return tensor == NULL ? NULL : tensor->entry;
}

bool mc_source_read(
    const struct mc_tensor_source *source, const char *name, void *into, struct mc_error *err)
{
	if (source->parts != NULL) {
		const struct mc_st_file *file;
		const struct mc_st_entry *entry = mc_parts_find(source->parts, name, &file);
		return mc_st_read(file, entry, 0, entry->bytes, into, err);
	}
	const struct mc_ckpt_tensor *tensor = mc_checkpoint_find(source->checkpoint, name);
	return mc_checkpoint_read(source->checkpoint, tensor, 0, tensor->entry->bytes, into, err);
}

bool mc_check_module_bytes(const struct mc_scheme *scheme, enum mc_dtype dt, size_t rows,
    size_t cols, uint64_t *ret_bytes, struct mc_error *err)
{
	struct mc_packed layout;
	uint64_t bytes = mc_rtn_bytes(&scheme->weights, rows, cols) +
			 2 * (cols * sizeof(float) + 64);

	if (!mc_pack_layout(scheme, dt, rows, cols, "", &layout, err))
		return false;
	bytes += cols * sizeof(int32_t) + 64;     /* weight_g_idx */
	for (size_t i = 0; i < layout.count; i++) /* as written, and as computed */
		bytes += 2 * (mc_tensor_bytes(&layout.items[i].tensor) + 64);
	*ret_bytes = bytes;
	return true;
}

void mc_verdict_merge(struct mc_verdict *into, struct mc_verdict *from)
{
	for (size_t i = 0; i < MC_CHECK_COUNT; i++) {
		struct mc_check *to = &into->checks[i], *add = &from->checks[i];
		into->made[i] |= from->made[i];
		to->counted += add->counted;
		to->failed += add->failed;
		for (size_t j = 0; j < add->examples_count; j++)
			if (to->examples_count < MC_VERDICT_EXAMPLES)
				to->examples[to->examples_count++] = add->examples[j];
			else
				free(add->examples[j]);
		add->examples_count = 0;
	}
	mc_verdict_release(from);
}

static bool same_shape(const struct mc_tensor *want, const struct mc_st_entry *have)
{
	return want->dtype == have->dtype && want->rank == have->rank &&
	       memcmp(want->shape, have->shape, want->rank * sizeof *want->shape) == 0;
}

/* Presence, dtype and shape of every tensor; reads those that are right. false in *ret_complete:
 * one is not. */
static bool read_tensors(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_tensor_source *source, struct mc_packed *packed, struct mc_arena *arena,
    bool *ret_complete, struct mc_error *err)
{
	*ret_complete = true;
	for (size_t i = 0; i < packed->count; i++) {
		struct mc_tensor *want = &packed->items[i].tensor;
		char have_text[96], want_text[96];
		char *name = mc_format(err, "%s.%s", check->name, packed->items[i].suffix);
		if (name == NULL)
			return false;
		const struct mc_st_entry *have = mc_source_find(source, name);
		bool ok = true;
		if (have == NULL) {
			mc_verdict_fail(verdict, MC_CHECK_PRESENT, "%s is missing", name);
			*ret_complete = false;
		} else if (!same_shape(want, have)) {
			mc_verdict_pass(verdict, MC_CHECK_PRESENT, 1);
			mc_verdict_fail(verdict, MC_CHECK_SHAPES, "%s is %s %s, needed %s %s", name,
			    mc_dtype_name(have->dtype),
			    mc_shape_text(have->rank, have->shape, have_text, sizeof have_text),
			    mc_dtype_name(want->dtype),
			    mc_shape_text(want->rank, want->shape, want_text, sizeof want_text));
			*ret_complete = false;
		} else {
			mc_verdict_pass(verdict, MC_CHECK_PRESENT, 1);
			mc_verdict_pass(verdict, MC_CHECK_SHAPES, 1);
			want->data = mc_arena_alloc(
			    arena, mc_tensor_bytes(want), 1, "tensor to check", err);
			ok = want->data != NULL && mc_source_read(source, name, want->data, err);
		}
		free(name);
		if (!ok)
			return false;
	}
	return true;
}

/* Codes in one form: a weight beside weight_packed is one that was left there. */
static bool check_one_form(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_tensor_source *source, const struct mc_packed *packed, struct mc_error *err)
{
	bool is_packed = strcmp(packed->items[0].suffix, "weight_packed") == 0;
	const char *other = is_packed ? "weight" : "weight_packed";
	char *name = mc_format(err, "%s.%s", check->name, other);

	if (name == NULL)
		return false;
	if (mc_source_find(source, name) != NULL)
		mc_verdict_fail(verdict, MC_CHECK_EXPECTED, "%s is there beside %s", name,
		    packed->items[0].suffix);
	free(name);
	return true;
}

/* Bytes as computed? */
static bool compare_computed(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_packed *packed, struct mc_arena *arena, struct mc_error *err)
{
	for (size_t i = 0; i < packed->count; i++) {
		size_t mark = mc_arena_mark(arena);
		const struct mc_st_file *file;
		uint64_t bytes = mc_tensor_bytes(&packed->items[i].tensor);
		char *name = mc_format(err, "%s.%s", check->name, packed->items[i].suffix);
		const struct mc_st_entry *entry = name == NULL
						      ? NULL
						      : mc_parts_find(check->computed, name, &file);
		void *computed = entry == NULL ? NULL
					       : mc_arena_alloc(arena, entry->bytes, 1,
						     "computed tensor", err);
		bool ok = name != NULL;
		if (ok && entry == NULL)
			mc_verdict_fail(
			    verdict, MC_CHECK_REREAD, "%s was written but never computed", name);
		else if (ok) {
			ok = computed != NULL &&
			     mc_st_read(file, entry, 0, entry->bytes, computed, err);
			if (ok && (entry->bytes != bytes ||
				      memcmp(computed, packed->items[i].tensor.data, bytes) != 0))
				mc_verdict_fail(verdict, MC_CHECK_REREAD,
				    "%s differs from what was computed", name);
			else if (ok)
				mc_verdict_pass(verdict, MC_CHECK_REREAD, 1);
		}
		free(name);
		mc_arena_rewind(arena, mark);
		if (!ok)
			return false;
	}
	return true;
}

static void check_scales(struct mc_verdict *verdict, const char *name, const char *what,
    const float *scale, size_t count)
{
	size_t not_finite = 0, not_positive = 0;

	for (size_t i = 0; i < count; i++) {
		not_finite += !isfinite(scale[i]);
		not_positive += isfinite(scale[i]) && !(scale[i] > 0);
	}
	if (not_finite > 0)
		mc_verdict_fail(verdict, MC_CHECK_FINITE, "%s.%s: %zu of %zu values are not finite",
		    name, what, not_finite, count);
	else
		mc_verdict_pass(verdict, MC_CHECK_FINITE, 1);
	if (not_positive > 0)
		mc_verdict_fail(verdict, MC_CHECK_POSITIVE,
		    "%s.%s: %zu of %zu values are zero or negative", name, what, not_positive,
		    count);
	else
		mc_verdict_pass(verdict, MC_CHECK_POSITIVE, 1);
}

static void check_codes(
    struct mc_verdict *verdict, const struct mc_module_check *check, const struct mc_quantized *q)
{
	size_t zeros = q->zero_point == NULL ? 0 : q->scale_rows * q->scale_cols;
	size_t bad = mc_quantized_bad_codes(q, &check->scheme->weights);
	size_t bad_zeros = mc_quantized_bad_zero_points(q, &check->scheme->weights);

	if (bad > 0)
		mc_verdict_fail(verdict, MC_CHECK_CODES, "%s.weight: %zu of %zu codes are %s",
		    check->name, bad, q->rows * q->cols,
		    check->scheme->weights.type == MC_QUANT_FLOAT ? "NaN" : "out of range");
	else
		mc_verdict_pass(verdict, MC_CHECK_CODES, 1);
	if (bad_zeros > 0)
		mc_verdict_fail(verdict, MC_CHECK_CODES,
		    "%s.weight_zero_point: %zu of %zu values are out of range", check->name,
		    bad_zeros, zeros);
}

static double dt_epsilon(enum mc_dtype dt)
{
	return dt == MC_BF16 ? 0x1p-8 : dt == MC_F16 ? 0x1p-11 : 0x1p-24;
}

/* Whether values may lie past the last code by more than half a step. */
static bool may_clip(const struct mc_quant_args *args)
{
	struct mc_weight_observer observer;
	struct mc_error ignored;

	mc_error_init(&ignored);
	return mc_args_mx(args) || !mc_weight_observer_make(&observer, args, "", &ignored) ||
	       observer.search != MC_SEARCH_NONE;
}

/* Half of the distance between the values that lie next to w. */
static double half_step(const struct mc_quant_args *args, double w, double scale)
{
	if (args->type == MC_QUANT_INT)
		return args->symmetric ? 0.5 * scale : scale;
	if (args->num_bits == 4)
		return fmax(fabs(w) * 0x1p-2, scale * 0x1p-2);
	return fmax(fabs(w) * 0x1p-4, scale * 0x1p-10);
}

/* What half precision loses near zero, where its values have a fixed distance: a product by its
 * rounding, a scale for each code. */
static double lost_near_zero(enum mc_dtype dt, double value, double scale)
{
	return dt != MC_F16 ? 0 : 0x1p-24 + (scale > 0 ? fabs(value) / scale * 0x1p-25 : 0);
}

/* How far w lies past the value of the last code. */
static double past_the_end(const struct mc_code_range *range, double w, double scale, double zero)
{
	double low = (range->min - zero) * scale, high = (range->max - zero) * scale;

	return w > high ? w - high : w < low ? low - w : 0;
}

/* The largest distance of a row, in units of what is allowed: > 1 is a failure. */
static double row_excess(const struct mc_module_check *check, const struct mc_quantized *q,
    size_t row, const float *w, const float *d)
{
	const struct mc_quant_args *args = &check->scheme->weights;
	struct mc_code_range range = mc_code_range(args);
	double epsilon = dt_epsilon(check->dt), worst = 0;
	double codes = args->type == MC_QUANT_FLOAT ? 0 : ldexp(1.0, (int)args->num_bits);
	bool clips = may_clip(args), group = args->group_size > 0;
	size_t scale_row = args->strategy == MC_STRATEGY_TENSOR  ? 0
			   : args->strategy == MC_STRATEGY_BLOCK ? row / args->block_rows
								 : row;
	size_t width = args->strategy == MC_STRATEGY_BLOCK ? args->block_cols
		       : group                             ? (size_t)args->group_size
							   : q->cols;

	for (size_t c = 0; c < q->cols; c++) {
		size_t column = q->group != NULL ? (size_t)q->group[c] : c / width;
		size_t at = scale_row * q->scale_cols + column;
		double zero = q->zero_point == NULL ? 0 : q->zero_point[at];
		double s = q->global_scale != 0 ? (double)q->scale[at] / q->global_scale
						: (double)q->scale[at];
		double step = half_step(args, w[c], s) +
			      (clips ? past_the_end(&range, w[c], s, zero) : 0);
		double allowed = step * (1 + 8 * epsilon) + 4 * epsilon * fabs(w[c]) +
				 2 * epsilon * codes * s + lost_near_zero(check->dt, d[c], s);
		worst = fmax(worst, fabs((double)w[c] - d[c]) / fmax(allowed, 1e-45));
	}
	return worst;
}

static bool check_bound(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_quantized *q, struct mc_arena *arena, struct mc_error *err)
{
	float *w = mc_arena_alloc(arena, q->cols, sizeof *w, "weight row", err);
	float *d = mc_arena_alloc(arena, q->cols, sizeof *d, "weight row", err);
	size_t row_bytes = q->cols * mc_dtype_bits(check->original->dtype) / 8, bad = 0;
	double worst = 0;

	if (w == NULL || d == NULL)
		return false;
	for (size_t r = 0; r < q->rows; r++) {
		mc_widen(check->original->dtype,
		    (const char *)check->original->data + r * row_bytes, w, q->cols);
		mc_quantized_row(q, &check->scheme->weights, check->dt, r, d);
		double excess = row_excess(check, q, r, w, d);
		bad += !(excess <= 1.0);
		worst = fmax(worst, excess);
	}
	if (bad > 0)
		mc_verdict_fail(verdict, MC_CHECK_BOUND,
		    "%s: %zu of %zu rows are further from the original than rounding "
		    "explains (up to %.3g times)",
		    check->name, bad, q->rows, worst);
	else
		mc_verdict_pass(verdict, MC_CHECK_BOUND, 1);
	return true;
}

/* Scales of one number a tensor. No calibration gives a subnormal one: memory that was never
 * written looks so. */
static void check_single_scales(
    struct mc_verdict *verdict, const struct mc_module_check *check, const struct mc_packed *packed)
{
	static const char *const suffixes[] = {
	    "input_scale", "input_global_scale", "weight_global_scale"};

	for (size_t i = 0; i < packed->count; i++) {
		const struct mc_tensor *t = &packed->items[i].tensor;
		const char *suffix = packed->items[i].suffix;
		float scale;
		if (strcmp(suffix, suffixes[0]) != 0 && strcmp(suffix, suffixes[1]) != 0 &&
		    strcmp(suffix, suffixes[2]) != 0)
			continue;
		mc_widen(t->dtype, t->data, &scale, 1);
		if (check->facts != NULL && suffix[0] == 'i') {
			check->facts->input_suffix = suffix;
			check->facts->input_level = scale > 0 ? log2(scale) : NAN;
		}
		if (fpclassify(scale) == FP_SUBNORMAL && t->dtype != MC_F16)
			mc_verdict_fail(verdict, MC_CHECK_POSITIVE,
			    "%s.%s is %g, as memory that was never written", check->name, suffix,
			    (double)scale);
		else
			check_scales(verdict, check->name, suffix, &scale, 1);
	}
}

static void check_zero_points(struct mc_verdict *verdict, const char *name, const char *what,
    const struct mc_tensor *t, const struct mc_quant_args *args)
{
	struct mc_code_range range = mc_code_range(args);
	size_t bad = 0, count = mc_tensor_elements(t);
	const int8_t *codes = t->data;

	for (size_t i = 0; i < count; i++)
		if (t->dtype == MC_I8)
			bad += (float)codes[i] < range.min || (float)codes[i] > range.max;
		else
			bad += ((uint8_t)codes[i] & 0x7f) == 0x7f; /* E4M3 NaN */
	if (bad > 0)
		mc_verdict_fail(verdict, MC_CHECK_CODES,
		    "%s.%s: %zu of %zu zero points are out of range", name, what, bad, count);
	else
		mc_verdict_pass(verdict, MC_CHECK_CODES, 1);
}

static void check_input_zero_point(
    struct mc_verdict *verdict, const struct mc_module_check *check, const struct mc_packed *packed)
{
	for (size_t i = 0; i < packed->count; i++)
		if (strcmp(packed->items[i].suffix, "input_zero_point") == 0)
			check_zero_points(verdict, check->name, packed->items[i].suffix,
			    &packed->items[i].tensor, &check->scheme->input);
}

/* Older checkpoints say the group of each column; there it is read with the rest. */
static bool add_order(const struct mc_module_check *check, const struct mc_tensor_source *source,
    struct mc_packed *packed, struct mc_error *err)
{
	char *name = mc_format(err, "%s.weight_g_idx", check->name);

	if (name == NULL)
		return false;
	if (check->scheme->weights.strategy == MC_STRATEGY_GROUP &&
	    mc_source_find(source, name) != NULL && packed->count < MC_MAX_PACKED)
		packed->items[packed->count++] = (struct mc_packed_tensor){.suffix = "weight_g_idx",
		    .tensor = {.dtype = MC_I32, .rank = 1, .shape = {check->cols}}};
	free(name);
	return true;
}

/* All tensors are there with data. */
static bool check_values(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_packed *packed, struct mc_arena *arena, struct mc_error *err)
{
	struct mc_quantized q;
	struct mc_error inner;

	mc_error_init(&inner);
	check_single_scales(verdict, check, packed);
	check_input_zero_point(verdict, check, packed);
	if (!mc_unpack(
		check->scheme, packed, check->rows, check->cols, check->name, arena, &q, &inner)) {
		if (inner.code != MC_CORRUPT)
			return mc_fail(err, inner.code, inner.where, "%s", inner.text);
		mc_verdict_fail(verdict, MC_CHECK_SHAPES, "%s %s", inner.where, inner.text);
		return true;
	}
	check_scales(verdict, check->name, "weight_scale", q.scale, q.scale_rows * q.scale_cols);
	check_codes(verdict, check, &q);
	if (check->facts != NULL) {
		check->facts->known = true;
		check->facts->is_zero = mc_quantized_is_zero(&q, &check->scheme->weights);
		check->facts->weight_level = mc_quantized_level(&q, &check->scheme->weights);
	}
	return check->original == NULL || check_bound(verdict, check, &q, arena, err);
}

bool mc_check_module(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_tensor_source *source, struct mc_arena *arena, struct mc_error *err)
{
	size_t mark = mc_arena_mark(arena);
	struct mc_packed packed;
	bool complete;

	if (check->facts != NULL)
		*check->facts = (struct mc_scale_facts){.weight_level = NAN, .input_level = NAN};
	bool ok = mc_pack_layout(check->scheme, check->dt, check->rows, check->cols, check->name,
		      &packed, err) &&
		  check_one_form(verdict, check, source, &packed, err) &&
		  add_order(check, source, &packed, err) &&
		  read_tensors(verdict, check, source, &packed, arena, &complete, err);
	if (ok && complete)
		ok = (check->computed == NULL ||
			 compare_computed(verdict, check, &packed, arena, err)) &&
		     check_values(verdict, check, &packed, arena, err);
	mc_arena_rewind(arena, mark);
	return ok;
}

/* --- attention -------------------------------------------------------------------------------- */

uint64_t mc_check_attention_bytes(const struct mc_packed *layout)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < layout->count; i++) /* as written, as computed, and as floats */
		bytes += 2 * (mc_tensor_bytes(&layout->items[i].tensor) + 64) +
			 mc_tensor_elements(&layout->items[i].tensor) * sizeof(float) + 64;
	return bytes;
}

bool mc_check_attention(struct mc_verdict *verdict, const struct mc_module_check *check,
    const struct mc_packed *layout, const struct mc_quant_args *args,
    const struct mc_tensor_source *source, struct mc_arena *arena, struct mc_error *err)
{
	size_t mark = mc_arena_mark(arena);
	struct mc_packed packed = *layout;
	bool complete;
	bool ok = read_tensors(verdict, check, source, &packed, arena, &complete, err) &&
		  (!complete || check->computed == NULL ||
		      compare_computed(verdict, check, &packed, arena, err));

	for (size_t i = 0; ok && i < packed.count; i++) {
		const struct mc_tensor *t = &packed.items[i].tensor;
		const char *what = packed.items[i].suffix;
		size_t count = mc_tensor_elements(t);
		if (t->data == NULL)
			continue; /* said already: missing or misshapen */
		if (strstr(what, "zero_point") != NULL) {
			check_zero_points(verdict, check->name, what, t, args);
			continue;
		}
		float *scale = mc_arena_alloc(arena, count, sizeof *scale, "scales", err);
		ok = scale != NULL;
		if (ok) {
			mc_widen(t->dtype, t->data, scale, count);
			check_scales(verdict, check->name, what, scale, count);
		}
	}
	mc_arena_rewind(arena, mark);
	return ok;
}
