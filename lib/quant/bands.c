/*
 * bands.c - see bands.h
 */
#include "bands.h"

#include <math.h>

#include "moecal/simd.h"

void mc_bands_settle(
    const struct mc_quant_args *args, size_t rows, size_t cols, size_t *ret_band, size_t *ret_width)
{
	bool block = args->strategy == MC_STRATEGY_BLOCK;
	bool group = args->strategy == MC_STRATEGY_GROUP ||
		     args->strategy == MC_STRATEGY_TENSOR_GROUP;

	*ret_band = args->strategy == MC_STRATEGY_TENSOR ? rows
		    : block                              ? (size_t)args->block_rows
							 : 1;
	*ret_width = group ? (size_t)args->group_size : block ? (size_t)args->block_cols : cols;
}

bool mc_bands_init(struct mc_bands *bands, const struct mc_weight *weight,
    const struct mc_quant_args *args, const char *name, struct mc_error *err)
{
	*bands = (struct mc_bands){
	    .weight = weight, .name = name, .rows = weight->rows, .cols = weight->cols};
	if (!mc_scale_shape(
		args, bands->rows, bands->cols, name, &bands->scale_rows, &bands->scale_cols, err))
		return false;
	mc_bands_settle(args, bands->rows, bands->cols, &bands->band, &bands->width);
	return true;
}

void mc_bands_read(const struct mc_bands *bands, size_t row)
{
	const struct mc_weight *weight = bands->weight;
	size_t bytes = weight->cols * (mc_dtype_bits(weight->dtype) / 8);

	mc_widen(weight->dtype, (const unsigned char *)weight->data + row * bytes, bands->row,
	    weight->cols);
}

size_t mc_bands_run(const struct mc_bands *bands, size_t segment)
{
	size_t start = segment * bands->width;

	return bands->cols - start < bands->width ? bands->cols - start : bands->width;
}

size_t mc_bands_height(const struct mc_bands *bands, size_t first)
{
	return bands->rows - first < bands->band ? bands->rows - first : bands->band;
}

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

/* Least and greatest of each segment of a row, as ordered integers in the place of the floats;
 * infinities and NaN of either sign lie at the ends and are seen there. */
MC_SIMD static void add_row(
    const float *row, size_t cols, size_t width, struct mc_band_range *ranges)
{
	for (size_t s = 0, start = 0; start < cols; s++, start += width) {
		size_t n = cols - start < width ? cols - start : width, i = 0;
		const float *x = row + start;
		int32_t low[MC_LANES], high[MC_LANES];
		int32_t min = (int32_t)mc_float_bits(ranges[s].min);
		int32_t max = (int32_t)mc_float_bits(ranges[s].max);

		for (size_t l = 0; l < MC_LANES; l++) {
			low[l] = min;
			high[l] = max;
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
			min = low[l] < min ? low[l] : min;
			max = high[l] > max ? high[l] : max;
		}
		ranges[s].min = mc_bits_float((uint32_t)min);
		ranges[s].max = mc_bits_float((uint32_t)max);
	}
}

/* Names the first value that is not a number. */
static bool fail_not_finite(const struct mc_bands *bands, size_t first, struct mc_error *err)
{
	size_t end = first + mc_bands_height(bands, first);

	for (size_t r = first; r < end; r++) {
		mc_bands_read(bands, r);
		for (size_t c = 0; c < bands->cols; c++)
			if (!isfinite(bands->row[c]))
				return mc_fail(err, MC_CORRUPT, bands->name,
				    "the weight is %f at row %zu, column %zu; "
				    "needed finite numbers",
				    (double)bands->row[c], r, c);
	}
	return mc_fail(err, MC_INTERNAL, bands->name, "a weight that is not finite was lost");
}

bool mc_bands_ranges(
    const struct mc_bands *bands, size_t first, struct mc_band_range *ranges, struct mc_error *err)
{
	const int32_t infinity = ordered(INFINITY), minus_infinity = ordered(-INFINITY);
	size_t end = first + mc_bands_height(bands, first);
	bool finite = true;

	for (size_t s = 0; s < bands->scale_cols; s++) {
		ranges[s].min = mc_bits_float(INT32_MAX);
		ranges[s].max = mc_bits_float((uint32_t)INT32_MIN);
	}
	for (size_t r = first; r < end; r++) {
		mc_bands_read(bands, r);
		add_row(bands->row, bands->cols, bands->width, ranges);
	}
	for (size_t s = 0; s < bands->scale_cols; s++) {
		int32_t min = (int32_t)mc_float_bits(ranges[s].min);
		int32_t max = (int32_t)mc_float_bits(ranges[s].max);
		finite &= min > minus_infinity && max < infinity;
		ranges[s].min = from_ordered(min);
		ranges[s].max = from_ordered(max);
	}
	return finite || fail_not_finite(bands, first, err);
}
