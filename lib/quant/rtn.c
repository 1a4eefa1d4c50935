/*
 * rtn.c - see rtn.h
 *
 * A weight is worked on in bands of rows that share their scales: one row (channel, group), the
 * rows of a block, or all (tensor). Each band is read twice: for the ranges, then for the codes. A
 * band of one row stays in the cache between the two.
 */
#include "moecal/rtn.h"

#include <math.h>
#include <string.h>

#include "moecal/alloc.h"

#include "bands.h"
#include "kernel.h"

/* --- codes ------------------------------------------------------------------------------------ */

/* Sums of squares of errors and of weights, element i of a run in lane i % MC_LANES. */
struct sums {
	double error[MC_LANES], square[MC_LANES];
};

MC_INLINE void quantize_block(enum mc_code_kind kind, enum mc_dtype dt, struct mc_run run,
    const float *restrict x, int8_t *restrict codes, struct sums *restrict sums)
{
	float error[MC_LANES];
	int32_t code[MC_LANES];

	for (size_t l = 0; l < MC_LANES; l++) {
		code[l] = mc_code(kind, dt, run, x[l]);
		error[l] = x[l] - mc_value(kind, dt, run, code[l]);
	}
	for (size_t l = 0; l < MC_LANES; l++)
		codes[l] = (int8_t)code[l];
	for (size_t l = 0; l < MC_LANES; l++)
		sums->error[l] += (double)error[l] * (double)error[l];
	for (size_t l = 0; l < MC_LANES; l++)
		sums->square[l] += (double)x[l] * (double)x[l];
}

/* The rest of a run, one by one into the same lanes. */
MC_INLINE void quantize_rest(enum mc_code_kind kind, enum mc_dtype dt, struct mc_run run, const float *x,
    int8_t *codes, size_t n, struct sums *sums)
{
	for (size_t l = 0; l < n; l++) {
		int32_t code = mc_code(kind, dt, run, x[l]);
		double error = (double)(x[l] - mc_value(kind, dt, run, code));
		codes[l] = (int8_t)code;
		sums->error[l] += error * error;
		sums->square[l] += (double)x[l] * (double)x[l];
	}
}

/* A row, whose segments of `width` values have a run each. */
#define QUANTIZE(name, kind, dt)                                                                   \
	MC_SIMD static void name(const struct mc_run *runs, size_t width, const float *row,        \
	    int8_t *codes, size_t cols, struct sums *sums)                                         \
	{                                                                                          \
		for (size_t s = 0, start = 0; start < cols; s++, start += width) {                 \
			size_t n = cols - start < width ? cols - start : width, i = 0;             \
			const float *x = row + start;                                              \
			int8_t *to = codes + start;                                                \
			for (; i + MC_LANES <= n; i += MC_LANES)                                   \
				quantize_block(kind, dt, runs[s], x + i, to + i, sums);            \
			quantize_rest(kind, dt, runs[s], x + i, to + i, n - i, sums);              \
		}                                                                                  \
	}
MC_KERNELS(QUANTIZE, quantize)

typedef void quantize_fn(const struct mc_run *runs, size_t width, const float *row, int8_t *codes,
    size_t cols, struct sums *sums);
static quantize_fn *const quantizers[3][3] = MC_KERNEL_TABLE(quantize);

/* --- one weight ------------------------------------------------------------------------------- */

struct work {
	struct mc_bands bands;
	const struct mc_quant_args *args;
	struct mc_quantized *q;
	struct mc_weight_observer observer;
	const uint16_t *step;         /* [scales] or NULL */
	struct mc_band_range *ranges; /* [scale_cols] of the band */
	struct mc_run *runs;          /* likewise */
	struct sums sums;
};

/* Under a global scale values are float32, whatever the weight is. */
static enum mc_dtype code_dtype(const struct mc_quantized *q, enum mc_dtype dt)
{
	return q->global_scale != 0 ? MC_F32 : dt;
}

static struct mc_qparam qparam_of(const struct work *w, size_t at, float min, float max)
{
	enum mc_dtype dt = w->bands.weight->dtype;

	mc_weight_observer_range(
	    &w->observer, dt, w->step == NULL ? 0 : w->step[at], &min, &max);
	if (w->q->global_scale != 0)
		return mc_qparam_make_local(w->args, dt, min, max, w->q->global_scale);
	return mc_qparam_make(w->args, dt, min, max);
}

/* mc_qparam_make_local for the ranges of a row that was not searched; absmax is the greatest
 * distance from zero of each. */
#define LOCAL_SCALES(name, dt)                                                                     \
	MC_SIMD static void name(                                                                  \
	    const struct mc_band_range *restrict ranges, float global, float *restrict scale, size_t n) \
	{                                                                                          \
		for (size_t i = 0; i < n; i++) {                                                   \
			float low = -ranges[i].min, high = ranges[i].max;                          \
			float a = low > high ? low : high;                                         \
			float v = mc_round_dt(dt, (a > 0.0f ? a : 0.0f) / 6.0f) * global;          \
			v = mc_decode_e4m3(mc_encode_e4m3(v < 448.0f ? v : 448.0f));               \
			scale[i] = v == 0.0f ? 0.125f : v;                                         \
		}                                                                                  \
	}
LOCAL_SCALES(local_scales_f32, MC_F32)
LOCAL_SCALES(local_scales_bf16, MC_BF16)
LOCAL_SCALES(local_scales_f16, MC_F16)

static void make_local_scales(struct work *w, float *scale)
{
	enum mc_dtype dt = w->bands.weight->dtype;

	(dt == MC_BF16  ? local_scales_bf16
	 : dt == MC_F16 ? local_scales_f16
			: local_scales_f32)(w->ranges, w->q->global_scale, scale, w->q->scale_cols);
}

/* The scales of the band's ranges into q, and its runs. */
static void make_scales(struct work *w, size_t base)
{
	struct mc_quantized *q = w->q;
	struct mc_code_range range = mc_code_range(w->args);
	bool local = q->global_scale != 0 && w->step == NULL;

	if (local)
		make_local_scales(w, q->scale + base);
	for (size_t s = 0; s < q->scale_cols; s++) {
		struct mc_qparam qparam = {.scale = q->scale[base + s]};
		if (!local)
			qparam = qparam_of(w, base + s, w->ranges[s].min, w->ranges[s].max);
		q->scale[base + s] = qparam.scale;
		if (q->zero_point != NULL)
			q->zero_point[base + s] = qparam.zero_point;
		w->runs[s] = (struct mc_run){
		    .scale = q->global_scale != 0 ? qparam.scale / q->global_scale : qparam.scale,
		    .zero = (float)qparam.zero_point,
		    .min = range.min,
		    .max = range.max};
	}
}

static bool band_scales(struct work *w, size_t first, struct mc_error *err)
{
	struct mc_quantized *q = w->q;
	size_t base = first / w->bands.band * q->scale_cols;

	make_scales(w, base);
	for (size_t s = 0; s < q->scale_cols; s++) {
		float min = w->ranges[s].min, max = w->ranges[s].max, scale = q->scale[base + s];
		if (!isfinite(scale))
			return mc_fail(err, MC_UNSUPPORTED, w->bands.name,
			    "the range [%g, %g] of row %zu is too wide for a "
			    "scale in %s",
			    (double)min, (double)max, first,
			    mc_dtype_name(w->bands.weight->dtype));
		float absmax = -min > max ? -min : max;
		q->scale_min = scale < q->scale_min ? scale : q->scale_min;
		q->scale_max = scale > q->scale_max ? scale : q->scale_max;
		q->weight_absmax = absmax > q->weight_absmax ? absmax : q->weight_absmax;
	}
	return true;
}

static bool quantize_bands(struct work *w, struct mc_error *err)
{
	struct mc_quantized *q = w->q;
	const struct mc_bands *bands = &w->bands;
	enum mc_dtype dt = code_dtype(q, bands->weight->dtype);
	quantize_fn *quantize = quantizers[mc_code_kind(w->args)][mc_kernel_dtype(dt)];

	for (size_t r = 0; r < q->rows; r += bands->band) {
		size_t rows = mc_bands_height(bands, r);
		if (!mc_bands_ranges(bands, r, w->ranges, err) || !band_scales(w, r, err))
			return false;
		for (size_t i = r; i < r + rows; i++) {
			if (rows > 1) /* a single row is still there from the ranges */
				mc_bands_read(bands, i);
			quantize(w->runs, bands->width, bands->row, q->codes + i * q->cols,
			    q->cols, &w->sums);
		}
	}
	q->error_sum = mc_fold_sum(w->sums.error);
	q->square_sum = mc_fold_sum(w->sums.square);
	return true;
}

static uint64_t padded(uint64_t bytes)
{
	return (bytes + 63) / 64 * 64;
}

uint64_t mc_rtn_bytes(const struct mc_quant_args *args, size_t rows, size_t cols)
{
	struct mc_error err;
	size_t scale_rows, scale_cols;

	mc_error_init(&err);
	if (!mc_scale_shape(args, rows, cols, "", &scale_rows, &scale_cols, &err))
		return 0;
	uint64_t scales = (uint64_t)scale_rows * scale_cols;
	uint64_t codes = padded(cols * sizeof(float)) +
			 padded(scale_cols * sizeof(struct mc_band_range)) +
			 padded(scale_cols * sizeof(struct mc_run));
	uint64_t observe = mc_observe_scratch_bytes(args, rows, cols);
	return padded((uint64_t)rows * cols) + padded(scales * sizeof(float)) +
	       (args->symmetric ? 0 : padded(scales * sizeof(int32_t))) +
	       mc_observed_bytes(args, rows, cols) + (observe > codes ? observe : codes);
}

/* Whether these codes and scales are rounded to here. */
static bool require_scheme(
    const struct mc_quant_args *args, const char *name, struct mc_error *err)
{
	bool is_float = args->type == MC_QUANT_FLOAT;
	bool global = args->strategy == MC_STRATEGY_TENSOR_GROUP;
	bool fp4 = is_float && args->num_bits == 4;
	bool scales = args->scale_dtype[0] == '\0' ? !fp4
		      : global                     ? fp4 && mc_args_e4m3_scale(args)
						   : mc_args_mx(args);

	if (args->num_bits > 8 || (is_float && args->num_bits != 8 && !fp4) || !scales ||
	    (is_float && !args->symmetric) || (global && !fp4))
		return mc_fail(
		    err, MC_UNSUPPORTED, name, "rounding to this scheme's codes is not there yet");
	return true;
}

static bool make_arrays(struct mc_quantized *q, bool symmetric, struct mc_arena *arena,
    struct mc_error *err)
{
	size_t scales = q->scale_rows * q->scale_cols;

	q->codes = mc_arena_alloc(arena, q->rows * q->cols, 1, "codes", err);
	q->scale = mc_arena_alloc(arena, scales, sizeof *q->scale, "scales", err);
	if (!symmetric)
		q->zero_point =
		    mc_arena_alloc(arena, scales, sizeof *q->zero_point, "zero points", err);
	return q->codes != NULL && q->scale != NULL && (symmetric || q->zero_point != NULL);
}

bool mc_rtn_given(const struct mc_weight *weight, const struct mc_quant_args *args,
    const struct mc_rtn_given *given, const char *name, struct mc_arena *arena,
    struct mc_quantized *ret, struct mc_error *err)
{
	struct mc_quantized q = {.rows = weight->rows, .cols = weight->cols, .scale_min = INFINITY};
	struct work w = {.args = args, .q = &q};
	bool global = args->strategy == MC_STRATEGY_TENSOR_GROUP;
	struct mc_observed seen = {0};

	mc_assert(mc_dtype_is_weight(weight->dtype));
	if (!require_scheme(args, name, err) ||
	    !mc_bands_init(&w.bands, weight, args, name, err) ||
	    !mc_weight_observer_make(&w.observer, args, name, err))
		return false;
	q.scale_rows = w.bands.scale_rows;
	q.scale_cols = w.bands.scale_cols;
	if (!make_arrays(&q, args->symmetric, arena, err))
		return false;
	size_t mark = mc_arena_mark(arena);
	if (given->observed != NULL)
		seen = *given->observed;
	else if ((global || w.observer.search != MC_SEARCH_NONE) &&
		 !mc_observe_weight(weight, args, given->mean_square, name, arena, &seen, err))
		return false;
	w.step = seen.step;
	if (global)
		q.global_scale = mc_global_scale(weight->dtype,
		    given->fused_absmax > 0 ? given->fused_absmax : seen.absmax);
	w.bands.row = mc_arena_alloc(arena, q.cols, sizeof *w.bands.row, "a row of weights", err);
	w.ranges = mc_arena_alloc(arena, q.scale_cols, sizeof *w.ranges, "ranges", err);
	w.runs = mc_arena_alloc(arena, q.scale_cols, sizeof *w.runs, "scales of a band", err);
	if (w.bands.row == NULL || w.ranges == NULL || w.runs == NULL || !quantize_bands(&w, err))
		return false;
	mc_arena_rewind(arena, mark);
	*ret = q;
	return true;
}

bool mc_rtn(const struct mc_weight *weight, const struct mc_quant_args *args, const char *name,
    struct mc_arena *arena, struct mc_quantized *ret, struct mc_error *err)
{
	return mc_rtn_given(weight, args, &(struct mc_rtn_given){0}, name, arena, ret, err);
}

static struct mc_qparam stored_qparam(const struct mc_quantized *q, size_t at)
{
	return (struct mc_qparam){
	    .scale = q->global_scale != 0 ? q->scale[at] / q->global_scale : q->scale[at],
	    .zero_point = q->zero_point == NULL ? 0 : q->zero_point[at]};
}

void mc_quantized_row(const struct mc_quantized *q, const struct mc_quant_args *args,
    enum mc_dtype dt, size_t row, float *out)
{
	enum mc_dtype code_dt = code_dtype(q, dt);
	size_t band, width;

	mc_bands_settle(args, q->rows, q->cols, &band, &width);
	const int8_t *codes = q->codes + row * q->cols;
	size_t base = row / band * q->scale_cols;
	if (q->group != NULL)
		for (size_t c = 0; c < q->cols; c++)
			mc_dequantize(args, code_dt, stored_qparam(q, base + (size_t)q->group[c]),
			    codes + c, out + c, 1);
	else
		for (size_t s = 0, start = 0; s < q->scale_cols; s++, start += width)
			mc_dequantize(args, code_dt, stored_qparam(q, base + s), codes + start,
			    out + start, q->cols - start < width ? q->cols - start : width);
	if (code_dt != dt)
		for (size_t c = 0; c < q->cols; c++)
			out[c] = mc_round_to(dt, out[c]);
}
