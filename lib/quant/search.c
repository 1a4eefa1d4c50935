/*
 * search.c - a weight's observer at work: see moecal/weight_observer.h
 *
 * A step is a pass over the whole weight, because whether to go on is asked of all scales together.
 * Per row: what rounding would make of each value, the distance, its power, its weight; then sums
 * of the segments, kept in float64 and rounded once where the reference rounds its sums.
 */
#include "moecal/weight_observer.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "bands.h"
#include "kernel.h"

/* --- kernels ---------------------------------------------------------------------------------- */

/* What each value of a row becomes when it is rounded to a code and back; segments of `width`
 * values have a run each. */
#define FAKE(name, kind, dt)                                                                       \
	MC_SIMD static void name(const struct mc_run *runs, size_t width,                          \
	    const float *restrict row, float *restrict to, size_t cols)                            \
	{                                                                                          \
		for (size_t s = 0, start = 0; start < cols; s++, start += width) {                 \
			size_t n = cols - start < width ? cols - start : width, i = 0;             \
			const struct mc_run run = runs[s];                                         \
			const float *x = row + start;                                              \
			float *y = to + start;                                                     \
			for (; i + MC_LANES <= n; i += MC_LANES)                                   \
				for (size_t l = 0; l < MC_LANES; l++)                              \
					y[i + l] = mc_value(                                       \
					    kind, dt, run, mc_code(kind, dt, run, x[i + l]));      \
			for (; i < n; i++)                                                         \
				y[i] = mc_value(kind, dt, run, mc_code(kind, dt, run, x[i]));      \
		}                                                                                  \
	}
MC_KERNELS(FAKE, fake)

typedef void fake_fn(const struct mc_run *runs, size_t width, const float *restrict row,
    float *restrict to, size_t cols);
static fake_fn *const fakes[3][3] = MC_KERNEL_TABLE(fake);

/* y becomes |y - x| */
#define DISTANCE(name, dt)                                                                         \
	MC_SIMD static void name(const float *restrict x, float *restrict y, size_t n)             \
	{                                                                                          \
		for (size_t i = 0; i < n; i++)                                                     \
			y[i] = mc_bits_float(                                                      \
			    mc_float_bits(mc_round_dt(dt, y[i] - x[i])) & 0x7fffffffu);            \
	}
DISTANCE(distance_f32, MC_F32)
DISTANCE(distance_bf16, MC_BF16)
DISTANCE(distance_f16, MC_F16)

typedef void distance_fn(const float *restrict x, float *restrict y, size_t n);
static distance_fn *const distances[3] = {distance_f32, distance_bf16, distance_f16};

MC_SIMD static void weigh(const float *restrict weight, float *restrict y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] = y[i] * weight[i];
}

/* Adds to the sums of the segments of a row. */
MC_SIMD static void add_sums(const float *row, size_t cols, size_t width, double *sums)
{
	for (size_t s = 0, start = 0; start < cols; s++, start += width) {
		size_t n = cols - start < width ? cols - start : width, i = 0;
		const float *x = row + start;
		double lane[MC_LANES] = {0};

		for (; i + MC_LANES <= n; i += MC_LANES)
			for (size_t l = 0; l < MC_LANES; l++)
				lane[l] += (double)x[i + l];
		for (size_t l = 0; i + l < n; l++)
			lane[l] += (double)x[i + l];
		sums[s] += mc_fold_sum(lane);
	}
}

/* --- one candidate ---------------------------------------------------------------------------- */

struct mc_quant_args mc_search_args(const struct mc_quant_args *args)
{
	struct mc_quant_args search = *args;

	if (args->strategy == MC_STRATEGY_TENSOR_GROUP)
		search.scale_dtype[0] = '\0';
	return search;
}

float mc_search_largest(enum mc_dtype dt)
{
	return dt == MC_BF16 ? 0x1.fep127f : dt == MC_F16 ? 65504.0f : FLT_MAX;
}

static struct mc_run run_of(struct mc_code_range codes, struct mc_qparam q)
{
	return (struct mc_run){
	    .scale = q.scale, .zero = (float)q.zero_point, .min = codes.min, .max = codes.max};
}

double mc_search_error(const struct mc_quant_args *args, enum mc_dtype dt,
    const struct mc_power *power, struct mc_qparam qparam, const float *x, float *scratch, size_t n)
{
	struct mc_run run = run_of(mc_code_range(args), qparam);
	double sum = 0;

	if (n == 0)
		return 0;
	fakes[mc_code_kind(args)][mc_kernel_dtype(dt)](&run, n, x, scratch, n);
	distances[mc_kernel_dtype(power->dt)](x, scratch, n);
	mc_power_apply(power, scratch, n);
	add_sums(scratch, n, n, &sum);
	return sum;
}

/* --- one search ------------------------------------------------------------------------------- */

struct search {
	struct mc_bands bands;
	struct mc_weight_observer observer;
	struct mc_quant_args
	    args; /* as the search rounds: without a scale_dtype of global scales */
	enum mc_dtype dt, error_dt; /* of the weight; of distances, powers and sums */
	struct mc_power power;
	const float *importance;     /* [cols] or NULL */
	struct mc_band_range *range; /* [scales]: as found */
	bool plain;          /* symmetric numbers, whose scales are the distance over a constant */
	float *absmax;       /* [scales]: of the ranges, when plain */
	float *best;         /* [scales]: least error so far */
	uint16_t *step;      /* [scales]: where */
	float *y;            /* [cols] */
	struct mc_run *runs; /* [scale_cols] of the band */
	double *sums;        /* [scale_cols] of the band */
};

/* Scales of symmetric numbers: mc_weight_observer_range and mc_qparam_make in one, on the distance
 * from zero, which rounds as its two ends do. */
#define SCALES(name, dt)                                                                           \
	MC_SIMD static void name(const float *restrict absmax, float expand, float p, float half,  \
	    float zero, float *restrict scale, size_t n)                                           \
	{                                                                                          \
		for (size_t i = 0; i < n; i++) {                                                   \
			float a = mc_round_dt(dt, mc_round_dt(dt, absmax[i] * expand) * p);        \
			float v = mc_round_dt(dt, a / half);                                       \
			scale[i] = v == 0.0f ? zero : v;                                           \
		}                                                                                  \
	}
SCALES(scales_f32, MC_F32)
SCALES(scales_bf16, MC_BF16)
SCALES(scales_f16, MC_F16)

typedef void scales_fn(const float *restrict absmax, float expand, float p, float half, float zero,
    float *restrict scale, size_t n);
static scales_fn *const scales_of[3] = {scales_f32, scales_bf16, scales_f16};

/* The runs of one band. y is scratch here. */
static void make_runs(struct search *s, size_t base, unsigned step)
{
	struct mc_code_range codes = mc_code_range(&s->args);
	const struct mc_band_range *range = s->range + base;
	size_t n = s->bands.scale_cols;

	if (s->plain) {
		float zero = mc_qparam_make(&s->args, s->dt, 0, 0).scale;
		float p = (float)(1.0 - (double)step / s->observer.grid);
		scales_of[mc_kernel_dtype(s->dt)](s->absmax + base, (float)s->observer.expand, p,
		    (codes.max - codes.min) / 2, zero, s->y, n);
		for (size_t i = 0; i < n; i++)
			s->runs[i] = run_of(codes, (struct mc_qparam){.scale = s->y[i]});
		return;
	}
	for (size_t i = 0; i < n; i++) {
		float min = range[i].min, max = range[i].max;
		mc_weight_observer_range(&s->observer, s->dt, step, &min, &max);
		s->runs[i] = run_of(codes, mc_qparam_make(&s->args, s->dt, min, max));
	}
}

/* Errors of one band, not rounded yet, into s->sums. */
static void band_errors(struct search *s, size_t first)
{
	const struct mc_bands *bands = &s->bands;
	size_t end = first + mc_bands_height(bands, first), width = bands->width;
	fake_fn *fake = fakes[mc_code_kind(&s->args)][mc_kernel_dtype(s->dt)];
	distance_fn *distance = distances[mc_kernel_dtype(s->error_dt)];

	memset(s->sums, 0, bands->scale_cols * sizeof *s->sums);
	for (size_t r = first; r < end; r++) {
		mc_bands_read(bands, r);
		fake(s->runs, width, bands->row, s->y, bands->cols);
		distance(bands->row, s->y, bands->cols);
		mc_power_apply(&s->power, s->y, bands->cols);
		if (s->importance != NULL)
			weigh(s->importance, s->y, bands->cols);
		add_sums(s->y, bands->cols, width, s->sums);
	}
}

/* Whether any scale is better off at this step. */
static bool try_step(struct search *s, unsigned step)
{
	const struct mc_bands *bands = &s->bands;
	bool improved = false;

	for (size_t r = 0; r < bands->rows; r += bands->band) {
		size_t base = r / bands->band * bands->scale_cols;
		make_runs(s, base, step);
		band_errors(s, r);
		for (size_t i = 0; i < bands->scale_cols; i++) {
			float error = mc_round_to(s->error_dt, (float)s->sums[i]);
			if (!(error < s->best[base + i]))
				continue;
			s->best[base + i] = error;
			s->step[base + i] = (uint16_t)step;
			improved = true;
		}
	}
	return improved;
}

static void run_search(struct search *s)
{
	const struct mc_weight_observer *o = &s->observer;
	float largest = mc_search_largest(s->error_dt);
	size_t scales = s->bands.scale_rows * s->bands.scale_cols;
	bool for_ever = o->search == MC_SEARCH_IMATRIX && o->patience == 0;
	unsigned misses = 0;

	for (size_t i = 0; i < scales; i++) {
		s->best[i] = largest;
		s->step[i] = 0;
	}
	for (unsigned step = 0; step < o->steps; step++) {
		misses = try_step(s, step) ? 0 : misses + 1;
		if (misses > 0 && misses >= o->patience && !for_ever)
			return;
	}
}

/* --- importance ------------------------------------------------------------------------------- */

/* Mean squares over their mean; false where they say nothing. */
static bool normalise(const float *mean_square, size_t n, float *ret)
{
	double sum = 0;

	for (size_t i = 0; i < n; i++) {
		if (!isfinite(mean_square[i]) || mean_square[i] < 0)
			return false;
		sum += (double)mean_square[i];
	}
	float mean = (float)(sum / (double)n) + 0x1p-126f;
	for (size_t i = 0; i < n; i++)
		ret[i] = mean_square[i] / mean;
	return sum > 0;
}

/* Which weights can be weighed: those whose groups lie along the input channels. */
static bool weighs(const struct mc_quant_args *args)
{
	return args->strategy == MC_STRATEGY_CHANNEL || args->strategy == MC_STRATEGY_GROUP ||
	       args->strategy == MC_STRATEGY_TENSOR_GROUP;
}

static bool settle_importance(struct search *s, const float *mean_square, float *importance,
    const char *name, struct mc_error *err)
{
	if (s->observer.search != MC_SEARCH_IMATRIX)
		return true;
	if (mean_square != NULL && weighs(&s->args) &&
	    normalise(mean_square, s->bands.cols, importance))
		s->importance = importance;
	else if (s->observer.strict)
		return mc_fail(err, MC_INVALID, name,
		    "observer %s is strict and there are no mean squares of inputs to weigh with",
		    s->args.observer);
	return true;
}

/* --- the whole -------------------------------------------------------------------------------- */

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

static bool searches(const struct mc_quant_args *args)
{
	struct mc_weight_observer observer;
	struct mc_error ignored;

	mc_error_init(&ignored);
	return mc_weight_observer_make(&observer, args, "", &ignored) &&
	       observer.search != MC_SEARCH_NONE;
}

static bool shape(
    const struct mc_quant_args *args, size_t rows, size_t cols, size_t *ret_rows, size_t *ret_cols)
{
	struct mc_error ignored;

	mc_error_init(&ignored);
	return mc_scale_shape(args, rows, cols, "", ret_rows, ret_cols, &ignored);
}

uint64_t mc_observed_bytes(const struct mc_quant_args *args, size_t rows, size_t cols)
{
	size_t scale_rows, scale_cols;

	if (!searches(args) || !shape(args, rows, cols, &scale_rows, &scale_cols))
		return 0;
	return padded((uint64_t)scale_rows * scale_cols * sizeof(uint16_t));
}

uint64_t mc_observe_scratch_bytes(const struct mc_quant_args *args, size_t rows, size_t cols)
{
	size_t scale_rows, scale_cols;

	if (!shape(args, rows, cols, &scale_rows, &scale_cols))
		return 0;
	uint64_t scales = (uint64_t)scale_rows * scale_cols, row = padded(cols * sizeof(float));
	uint64_t plain = row + padded(scale_cols * sizeof(struct mc_band_range));
	if (!searches(args))
		return plain;
	return 3 * row + padded(scales * sizeof(struct mc_band_range)) +
	       2 * padded(scales * sizeof(float)) + padded(scale_cols * sizeof(struct mc_run)) +
	       padded(scale_cols * sizeof(double)) + padded(MC_POWER_TABLE * sizeof(uint16_t));
}

static bool observe_minmax(
    struct mc_bands *bands, struct mc_arena *arena, struct mc_observed *ret, struct mc_error *err)
{
	struct mc_band_range *ranges = mc_arena_alloc(
	    arena, bands->scale_cols, sizeof *ranges, "ranges", err);

	if (ranges == NULL)
		return false;
	for (size_t r = 0; r < bands->rows; r += bands->band) {
		if (!mc_bands_ranges(bands, r, ranges, err))
			return false;
		for (size_t i = 0; i < bands->scale_cols; i++)
			ret->absmax = fmaxf(ret->absmax, fmaxf(ranges[i].max, -ranges[i].min));
	}
	return true;
}

static bool observe_search(struct search *s, const float *mean_square, struct mc_arena *arena,
    struct mc_observed *ret, struct mc_error *err)
{
	struct mc_bands *bands = &s->bands;
	size_t scales = bands->scale_rows * bands->scale_cols;
	float *importance = mc_arena_alloc(arena, bands->cols, sizeof(float), "importance", err);
	uint16_t *table = mc_arena_alloc(
	    arena, MC_POWER_TABLE, sizeof *table, "a table of powers", err);

	s->y = mc_arena_alloc(arena, bands->cols, sizeof *s->y, "a row of errors", err);
	s->range = mc_arena_alloc(arena, scales, sizeof *s->range, "ranges", err);
	s->absmax = mc_arena_alloc(arena, scales, sizeof *s->absmax, "ranges", err);
	s->best = mc_arena_alloc(arena, scales, sizeof *s->best, "least errors", err);
	s->runs = mc_arena_alloc(arena, bands->scale_cols, sizeof *s->runs, "scales", err);
	s->sums = mc_arena_alloc(arena, bands->scale_cols, sizeof *s->sums, "errors", err);
	if (importance == NULL || table == NULL || s->y == NULL || s->range == NULL ||
	    s->absmax == NULL || s->best == NULL || s->runs == NULL || s->sums == NULL ||
	    !settle_importance(s, mean_square, importance, bands->name, err))
		return false;
	for (size_t r = 0; r < bands->rows; r += bands->band)
		if (!mc_bands_ranges(bands, r, s->range + r / bands->band * bands->scale_cols, err))
			return false;
	s->plain = s->args.symmetric && s->args.scale_dtype[0] == '\0';
	for (size_t i = 0; s->plain && i < scales; i++)
		s->absmax[i] = fmaxf(0, fmaxf(s->range[i].max, -s->range[i].min));
	mc_power_init(&s->power, s->error_dt, s->observer.norm, table);
	run_search(s);
	for (size_t i = 0; i < scales; i++) {
		struct mc_band_range range = s->range[i];
		mc_weight_observer_range(&s->observer, s->dt, s->step[i], &range.min, &range.max);
		ret->absmax = fmaxf(ret->absmax, fmaxf(range.max, -range.min));
	}
	return true;
}

bool mc_observe_weight(const struct mc_weight *weight, const struct mc_quant_args *args,
    const float *mean_square, const char *name, struct mc_arena *arena, struct mc_observed *ret,
    struct mc_error *err)
{
	struct search s = {.args = mc_search_args(args), .dt = weight->dtype};

	*ret = (struct mc_observed){0};
	mc_assert(mc_dtype_is_weight(weight->dtype));
	if (!mc_weight_observer_make(&s.observer, args, name, err) ||
	    !mc_bands_init(&s.bands, weight, args, name, err))
		return false;
	if (s.observer.search != MC_SEARCH_NONE) {
		size_t scales = s.bands.scale_rows * s.bands.scale_cols;
		s.step = mc_arena_alloc(arena, scales, sizeof *s.step, "steps of a search", err);
		if (s.step == NULL)
			return false;
	}
	s.error_dt = s.observer.search == MC_SEARCH_IMATRIX ? MC_F32 : weight->dtype;
	size_t mark = mc_arena_mark(arena);
	s.bands.row = mc_arena_alloc(
	    arena, s.bands.cols, sizeof *s.bands.row, "a row of weights", err);
	bool ok = s.bands.row != NULL &&
		  (s.observer.search == MC_SEARCH_NONE
			  ? observe_minmax(&s.bands, arena, ret, err)
			  : observe_search(&s, mean_square, arena, ret, err));
	if (ok)
		mc_arena_rewind(arena, mark);
	ret->step = s.step;
	return ok;
}
