/*
 * accumulate.c - adding into arrays: scaled rows, statistics of channels
 */
#include "moecal/ops.h"

#include <math.h>

#include "moecal/simd.h"

/* Channels at a time in the statistics: their sums stay in the innermost cache while rows pass by.
 */
#define CHANNELS 512

/* The larger of two; a NaN that got in stays. */
MC_INLINE float larger(float a, float b)
{
	return ((b > a) | (b != b)) != 0 ? b : a;
}

MC_SIMD void mc_axpy(float a, const float *x, float *y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += a * x[i];
}

MC_SIMD void mc_add_to(const float *x, float *y, size_t n)
{
	for (size_t i = 0; i < n; i++)
		y[i] += x[i];
}

MC_SIMD static void add_sums(const float *restrict x, size_t n, double *restrict sum)
{
	for (size_t i = 0; i < n; i++)
		sum[i] += (double)x[i];
}

MC_SIMD static void add_squares(const float *restrict x, size_t n, double *restrict squares)
{
	for (size_t i = 0; i < n; i++)
		squares[i] += (double)x[i] * (double)x[i];
}

/* All three in one pass. */
MC_SIMD static void add_all(const float *restrict x, size_t n, double *restrict sum,
    double *restrict squares, float *restrict absmax)
{
	for (size_t i = 0; i < n; i++) {
		double v = (double)x[i];
		sum[i] += v;
		squares[i] += v * v;
		absmax[i] = larger(absmax[i], fabsf(x[i]));
	}
}

MC_SIMD static void add_absmax(const float *restrict x, size_t n, float *restrict absmax)
{
	for (size_t i = 0; i < n; i++)
		absmax[i] = larger(absmax[i], fabsf(x[i]));
}

void mc_channel_stats_add(const float *x, size_t ldx, size_t rows, size_t n, double *sum,
    double *sum_squares, float *absmax)
{
	bool all = sum != NULL && sum_squares != NULL && absmax != NULL;
	for (size_t first = 0; first < n; first += CHANNELS) {
		size_t count = n - first < CHANNELS ? n - first : CHANNELS;
		for (size_t row = 0; row < rows; row++) {
			const float *line = x + row * ldx + first;
			if (all) {
				add_all(
				    line, count, sum + first, sum_squares + first, absmax + first);
				continue;
			}
			if (sum != NULL)
				add_sums(line, count, sum + first);
			if (sum_squares != NULL)
				add_squares(line, count, sum_squares + first);
			if (absmax != NULL)
				add_absmax(line, count, absmax + first);
		}
	}
}
