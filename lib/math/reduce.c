/*
 * reduce.c - many values to one: range, finiteness, sums
 */
#include "moecal/ops.h"

#include <math.h>
#include <string.h>

#include "moecal/error.h"
#include "moecal/simd.h"

/* Comparisons pass over a NaN, depending on where it stands: so it is looked for by its bits. */
MC_INLINE uint32_t is_nan(float v)
{
	return (mc_float_bits(v) & 0x7fffffffu) > 0x7f800000u;
}

MC_SIMD void mc_range(const float *x, size_t n, float *ret_min, float *ret_max)
{
	mc_assert(n >= 1);
	float low[MC_LANES], high[MC_LANES];
	uint32_t nan = 0;
	size_t i = 0;
	for (size_t l = 0; l < MC_LANES; l++)
		low[l] = high[l] = x[0];
	for (; i + MC_LANES <= n; i += MC_LANES) {
		for (size_t l = 0; l < MC_LANES; l++) {
			low[l] = x[i + l] < low[l] ? x[i + l] : low[l];
			high[l] = x[i + l] > high[l] ? x[i + l] : high[l];
		}
	}
	for (size_t l = 0; i < n; i++, l++) {
		low[l] = x[i] < low[l] ? x[i] : low[l];
		high[l] = x[i] > high[l] ? x[i] : high[l];
	}
	for (size_t j = 0; j < n; j++)
		nan |= is_nan(x[j]);
	for (size_t l = 1; l < MC_LANES; l++)
		low[0] = low[l] < low[0] ? low[l] : low[0];
	*ret_min = nan != 0 ? NAN : low[0];
	*ret_max = nan != 0 ? NAN : mc_fold_max(high);
}

MC_SIMD void mc_range_rows(
    const float *x, size_t ldx, size_t rows, size_t n, float *min, float *max)
{
	float low[MC_LANES], high[MC_LANES];
	uint32_t nan = is_nan(*min) | is_nan(*max);
	for (size_t l = 0; l < MC_LANES; l++) {
		low[l] = *min;
		high[l] = *max;
	}
	for (size_t r = 0; r < rows; r++) {
		const float *row = x + r * ldx;
		size_t i = 0;
		for (; i + MC_LANES <= n; i += MC_LANES) {
			for (size_t l = 0; l < MC_LANES; l++) {
				low[l] = row[i + l] < low[l] ? row[i + l] : low[l];
				high[l] = row[i + l] > high[l] ? row[i + l] : high[l];
				nan |= is_nan(row[i + l]);
			}
		}
		for (size_t l = 0; i < n; i++, l++) {
			low[l] = row[i] < low[l] ? row[i] : low[l];
			high[l] = row[i] > high[l] ? row[i] : high[l];
			nan |= is_nan(row[i]);
		}
	}
	for (size_t l = 1; l < MC_LANES; l++)
		low[0] = low[l] < low[0] ? low[l] : low[0];
	*min = nan != 0 ? NAN : low[0];
	*max = nan != 0 ? NAN : mc_fold_max(high);
}

MC_SIMD bool mc_all_finite(const float *x, size_t n)
{
	uint32_t bad = 0;
	for (size_t i = 0; i < n; i++)
		bad |= (mc_float_bits(x[i]) & 0x7f800000u) == 0x7f800000u;
	return bad == 0;
}

MC_SIMD void mc_sums(const float *x, size_t n, double *ret_sum, double *ret_sum_squares)
{
	double sum[MC_LANES] = {0}, squares[MC_LANES] = {0};
	size_t i = 0;
	for (; i + MC_LANES <= n; i += MC_LANES) {
		for (size_t l = 0; l < MC_LANES; l++) {
			double v = (double)x[i + l];
			sum[l] += v;
			squares[l] += v * v;
		}
	}
	for (size_t l = 0; i < n; i++, l++) {
		double v = (double)x[i];
		sum[l] += v;
		squares[l] += v * v;
	}
	*ret_sum = mc_fold_sum(sum);
	*ret_sum_squares = mc_fold_sum(squares);
}

MC_SIMD void mc_error_sums(
    const float *a, const float *b, size_t n, double *ret_difference, double *ret_square)
{
	double difference[MC_LANES] = {0}, square[MC_LANES] = {0};
	size_t i = 0;
	for (; i + MC_LANES <= n; i += MC_LANES) {
		for (size_t l = 0; l < MC_LANES; l++) {
			double v = (double)a[i + l], d = v - (double)b[i + l];
			difference[l] += d * d;
			square[l] += v * v;
		}
	}
	for (size_t l = 0; i < n; i++, l++) {
		double v = (double)a[i], d = v - (double)b[i];
		difference[l] += d * d;
		square[l] += v * v;
	}
	*ret_difference = mc_fold_sum(difference);
	*ret_square = mc_fold_sum(square);
}

/* Few are compared, and never in a hot place: plain and in order. */
size_t mc_relative_differences(
    const float *a, const float *b, size_t n, double *ret_largest, double *ret_sum)
{
	double largest = 0, sum = 0;
	size_t differ = 0;

	for (size_t i = 0; i < n; i++) {
		double x = (double)a[i], y = (double)b[i], d = 0;
		if (x != y)
			d = isfinite(x) && isfinite(y) ? fabs(x - y) / fmax(fabs(x), fabs(y))
						       : INFINITY;
		differ += d != 0;
		largest = fmax(largest, d);
		sum += d;
	}
	*ret_largest = largest;
	*ret_sum = sum;
	return differ;
}

size_t mc_count_unlike(const void *a, const void *b, size_t size, size_t n)
{
	size_t differ = 0;

	for (size_t i = 0; i < n; i++)
		differ += memcmp((const char *)a + i * size, (const char *)b + i * size, size) != 0;
	return differ;
}
