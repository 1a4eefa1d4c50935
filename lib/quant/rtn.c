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

#include "kernel.h"

/* --- ranges ----------------------------------------------------------------------------------- */

/* Floats as integers of the same order: -0 below +0, NaN with the sign outside of everything. */
MC_INLINE int32_t ordered(float v)
{
	int32_t bits = (int32_t)mc_float_bits(v);
	return bits ^ (int32_t)((uint32_t)(bits >> 31) & 0x7fffffffu);
}

static float from_ordered(int32_t key)
{
	return mc_bits_float((uint32_t)key ^ ((uint32_t)(key >> 31) & 0x7fffffffu));
}

struct range {
	int32_t min, max; /* ordered */
};

/* Least and greatest of a run; infinities and NaN of either sign lie at the ends and are seen
 * there. */
MC_SIMD static void add_range(const float *x, size_t n, struct range *range)
{
	int32_t low[MC_LANES], high[MC_LANES];
	size_t i = 0;

	for (size_t l = 0; l < MC_LANES; l++) {
		low[l] = range->min;
		high[l] = range->max;
	}
	for (; i + MC_LANES <= n; i += MC_LANES) {
		for (size_t l = 0; l < MC_LANES; l++) {
			int32_t key = ordered(x[i + l]);
			low[l] = key < low[l] ? key : low[l];
			high[l] = key > high[l] ? key : high[l];
		}
	}
	for (; i < n; i++) {
		int32_t key = ordered(x[i]);
		low[0] = key < low[0] ? key : low[0];
		high[0] = key > high[0] ? key : high[0];
	}
	for (size_t l = 0; l < MC_LANES; l++) {
		range->min = low[l] < range->min ? low[l] : range->min;
		range->max = high[l] > range->max ? high[l] : range->max;
	}
}

/* --- codes ------------------------------------------------------------------------------------ */

/* Sums of squares of errors and of weights, element i of a run in lane i % MC_LANES. */
struct sums {
	double error[MC_LANES], square[MC_LANES];
};

MC_INLINE void quantize_block(bool is_float, enum mc_dtype dt, struct mc_run run,
    const float *restrict x, int8_t *restrict codes, struct sums *restrict sums)
{
	float error[MC_LANES];
	int32_t code[MC_LANES];

	for (size_t l = 0; l < MC_LANES; l++) {
		code[l] = mc_code(is_float, dt, run, x[l]);
		error[l] = x[l] - mc_value(is_float, dt, run, code[l]);
	}
	for (size_t l = 0; l < MC_LANES; l++)
		codes[l] = (int8_t)code[l];
	for (size_t l = 0; l < MC_LANES; l++)
		sums->error[l] += (double)error[l] * (double)error[l];
	for (size_t l = 0; l < MC_LANES; l++)
		sums->square[l] += (double)x[l] * (double)x[l];
}

/* The rest of a run, one by one into the same lanes. */
MC_INLINE void quantize_rest(bool is_float, enum mc_dtype dt, struct mc_run run, const float *x,
    int8_t *codes, size_t n, struct sums *sums)
{
	for (size_t l = 0; l < n; l++) {
		int32_t code = mc_code(is_float, dt, run, x[l]);
		double error = (double)(x[l] - mc_value(is_float, dt, run, code));
		codes[l] = (int8_t)code;
		sums->error[l] += error * error;
		sums->square[l] += (double)x[l] * (double)x[l];
	}
}

#define QUANTIZE(name, is_float, dt)                                                               \
	MC_SIMD static void name(                                                                  \
	    struct mc_run run, const float *x, int8_t *codes, size_t n, struct sums *sums)         \
	{                                                                                          \
		size_t i = 0;                                                                      \
		for (; i + MC_LANES <= n; i += MC_LANES)                                           \
			quantize_block(is_float, dt, run, x + i, codes + i, sums);                 \
		quantize_rest(is_float, dt, run, x + i, codes + i, n - i, sums);                   \
	}
QUANTIZE(quantize_int_f32, false, MC_F32)
QUANTIZE(quantize_int_bf16, false, MC_BF16)
QUANTIZE(quantize_int_f16, false, MC_F16)
QUANTIZE(quantize_fp8_f32, true, MC_F32)
QUANTIZE(quantize_fp8_bf16, true, MC_BF16)
QUANTIZE(quantize_fp8_f16, true, MC_F16)

typedef void quantize_fn(
    struct mc_run run, const float *x, int8_t *codes, size_t n, struct sums *sums);

static quantize_fn *choose(bool is_float, enum mc_dtype dt)
{
	if (dt == MC_BF16)
		return is_float ? quantize_fp8_bf16 : quantize_int_bf16;
	if (dt == MC_F16)
		return is_float ? quantize_fp8_f16 : quantize_int_f16;
	return is_float ? quantize_fp8_f32 : quantize_int_f32;
}

/* --- one weight ------------------------------------------------------------------------------- */

struct work {
	const struct mc_weight *weight;
	const struct mc_quant_args *args;
	const char *name;
	struct mc_quantized *q;
	size_t band, width;   /* rows and columns that share a scale */
	float *row;           /* [cols] */
	struct range *ranges; /* [scale_cols] of the band */
	struct sums sums;
};

static void read_row(const struct work *w, size_t row)
{
	size_t bytes = w->weight->cols * (mc_dtype_bits(w->weight->dtype) / 8);

	mc_widen(w->weight->dtype, (const unsigned char *)w->weight->data + row * bytes, w->row,
	    w->weight->cols);
}

static size_t run_length(const struct work *w, size_t segment)
{
	size_t start = segment * w->width, cols = w->weight->cols;

	return cols - start < w->width ? cols - start : w->width;
}

/* Names the first value that is not a number. */
static bool fail_not_finite(const struct work *w, size_t first, size_t rows, struct mc_error *err)
{
	for (size_t r = first; r < first + rows; r++) {
		read_row(w, r);
		for (size_t c = 0; c < w->weight->cols; c++)
			if (!isfinite(w->row[c]))
				return mc_fail(err, MC_CORRUPT, w->name,
				    "the weight is %f at row %zu, column %zu; "
				    "needed finite numbers",
				    (double)w->row[c], r, c);
	}
	return mc_fail(err, MC_INTERNAL, w->name, "a weight that is not finite was lost");
}

static bool band_ranges(struct work *w, size_t first, size_t rows, struct mc_error *err)
{
	struct mc_quantized *q = w->q;
	const int32_t infinity = ordered(INFINITY), minus_infinity = ordered(-INFINITY);
	bool finite = true;

	for (size_t s = 0; s < q->scale_cols; s++)
		w->ranges[s] = (struct range){INT32_MAX, INT32_MIN};
	for (size_t r = first; r < first + rows; r++) {
		read_row(w, r);
		for (size_t s = 0; s < q->scale_cols; s++)
			add_range(w->row + s * w->width, run_length(w, s), &w->ranges[s]);
	}
	for (size_t s = 0; s < q->scale_cols; s++)
		finite &= w->ranges[s].min > minus_infinity && w->ranges[s].max < infinity;
	return finite || fail_not_finite(w, first, rows, err);
}

static bool band_scales(struct work *w, size_t first, struct mc_error *err)
{
	struct mc_quantized *q = w->q;
	size_t base = first / w->band * q->scale_cols;

	for (size_t s = 0; s < q->scale_cols; s++) {
		float min = from_ordered(w->ranges[s].min), max = from_ordered(w->ranges[s].max);
		struct mc_qparam qparam = mc_qparam_make(w->args, w->weight->dtype, min, max);
		if (!isfinite(qparam.scale))
			return mc_fail(err, MC_UNSUPPORTED, w->name,
			    "the range [%g, %g] of row %zu is too wide for a "
			    "scale in %s",
			    (double)min, (double)max, first, mc_dtype_name(w->weight->dtype));
		q->scale[base + s] = qparam.scale;
		if (q->zero_point != NULL)
			q->zero_point[base + s] = qparam.zero_point;
		q->scale_min = qparam.scale < q->scale_min ? qparam.scale : q->scale_min;
		q->scale_max = qparam.scale > q->scale_max ? qparam.scale : q->scale_max;
		q->weight_absmax = fmaxf(q->weight_absmax, fmaxf(fabsf(min), fabsf(max)));
	}
	return true;
}

static void band_codes(struct work *w, size_t first, size_t rows, quantize_fn *quantize)
{
	struct mc_quantized *q = w->q;
	struct mc_code_range range = mc_code_range(w->args);
	size_t base = first / w->band * q->scale_cols;

	for (size_t r = first; r < first + rows; r++) {
		if (rows > 1) /* a single row is still there from the ranges */
			read_row(w, r);
		for (size_t s = 0; s < q->scale_cols; s++) {
			struct mc_run run = {.scale = q->scale[base + s],
			    .min = range.min,
			    .max = range.max,
			    .zero = q->zero_point == NULL ? 0.0f : (float)q->zero_point[base + s]};
			quantize(run, w->row + s * w->width, q->codes + r * q->cols + s * w->width,
			    run_length(w, s), &w->sums);
		}
	}
}

static bool quantize_bands(struct work *w, struct mc_error *err)
{
	struct mc_quantized *q = w->q;
	quantize_fn *quantize = choose(w->args->type == MC_QUANT_FLOAT, w->weight->dtype);

	for (size_t r = 0; r < q->rows; r += w->band) {
		size_t rows = q->rows - r < w->band ? q->rows - r : w->band;
		if (!band_ranges(w, r, rows, err) || !band_scales(w, r, err))
			return false;
		band_codes(w, r, rows, quantize);
	}
	q->error_sum = mc_fold_sum(w->sums.error);
	q->square_sum = mc_fold_sum(w->sums.square);
	return true;
}

/* Rows and columns that share a scale. */
static void settle_band(
    const struct mc_quant_args *args, size_t rows, size_t cols, size_t *ret_band, size_t *ret_width)
{
	bool block = args->strategy == MC_STRATEGY_BLOCK;
	bool group =
	    args->strategy == MC_STRATEGY_GROUP || args->strategy == MC_STRATEGY_TENSOR_GROUP;

	*ret_band = args->strategy == MC_STRATEGY_TENSOR ? rows
		    : block                              ? (size_t)args->block_rows
							 : 1;
	*ret_width = group ? (size_t)args->group_size : block ? (size_t)args->block_cols : cols;
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
	return padded((uint64_t)rows * cols) + padded(scales * sizeof(float)) +
	       (args->symmetric ? 0 : padded(scales * sizeof(int32_t))) +
	       padded(cols * sizeof(float)) + padded(scale_cols * sizeof(struct range));
}

bool mc_rtn(const struct mc_weight *weight, const struct mc_quant_args *args, const char *name,
    struct mc_arena *arena, struct mc_quantized *ret, struct mc_error *err)
{
	struct mc_quantized q = {.rows = weight->rows, .cols = weight->cols, .scale_min = INFINITY};
	struct work w = {.weight = weight, .args = args, .name = name, .q = &q};

	mc_assert(mc_dtype_is_weight(weight->dtype));
	if (args->num_bits > 8 || (args->type == MC_QUANT_FLOAT && args->num_bits != 8) ||
	    args->scale_dtype[0] != '\0' || (args->type == MC_QUANT_FLOAT && !args->symmetric) ||
	    args->strategy == MC_STRATEGY_TENSOR_GROUP)
		return mc_fail(
		    err, MC_UNSUPPORTED, name, "rounding to this scheme's codes is not there yet");
	if (!mc_scale_shape(args, q.rows, q.cols, name, &q.scale_rows, &q.scale_cols, err))
		return false;
	size_t scales = q.scale_rows * q.scale_cols;
	settle_band(args, q.rows, q.cols, &w.band, &w.width);
	q.codes = mc_arena_alloc(arena, q.rows * q.cols, 1, "codes", err);
	q.scale = mc_arena_alloc(arena, scales, sizeof *q.scale, "scales", err);
	if (!args->symmetric)
		q.zero_point =
		    mc_arena_alloc(arena, scales, sizeof *q.zero_point, "zero points", err);
	size_t mark = mc_arena_mark(arena);
	w.row = mc_arena_alloc(arena, q.cols, sizeof *w.row, "a row of weights", err);
	w.ranges = mc_arena_alloc(arena, q.scale_cols, sizeof *w.ranges, "ranges", err);
	if (q.codes == NULL || q.scale == NULL || (!args->symmetric && q.zero_point == NULL) ||
	    w.row == NULL || w.ranges == NULL || !quantize_bands(&w, err))
		return false;
	mc_arena_rewind(arena, mark);
	*ret = q;
	return true;
}

void mc_quantized_row(const struct mc_quantized *q, const struct mc_quant_args *args,
    enum mc_dtype dt, size_t row, float *out)
{
	size_t band, width;

	settle_band(args, q->rows, q->cols, &band, &width);
	for (size_t s = 0; s < q->scale_cols; s++) {
		size_t at = row / band * q->scale_cols + s, start = s * width;
		struct mc_qparam qparam = {.scale = q->scale[at],
		    .zero_point = q->zero_point == NULL ? 0 : q->zero_point[at]};
		mc_dequantize(args, dt, qparam, q->codes + row * q->cols + start, out + start,
		    q->cols - start < width ? q->cols - start : width);
	}
}
