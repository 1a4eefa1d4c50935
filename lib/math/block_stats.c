/*
 * block_stats.c - range and per-channel statistics of a block of rows in one pass
 *
 * Calibration reads every input of every expert for its statistics; read once, while it is in the
 * cache, that costs less than making the values. Four rows go at a time, so that the sums are
 * loaded and stored a quarter as often; each channel still adds its rows one by one and in order,
 * so neither the vector width nor how the rows were cut into calls can change a bit.
 */
#include "moecal/ops.h"

#include <math.h>

#include "moecal/simd.h"

/* Channels whose running minimum and maximum are kept near. */
enum { CHUNK = 128 };

MC_INLINE const float *row_at(const float *x, size_t ldx, const uint32_t *rows, size_t i)
{
	return x + (rows != NULL ? (size_t)rows[i] : i) * ldx;
}

MC_INLINE float lower(float a, float b)
{
	return b < a ? b : a;
}

MC_INLINE float higher(float a, float b)
{
	return b > a ? b : a;
}

MC_INLINE void add_four(const float *restrict a, const float *restrict b, const float *restrict c,
    const float *restrict d, size_t n, double *restrict sum, double *restrict squares,
    float *restrict low, float *restrict high)
{
	for (size_t i = 0; i < n; i++) {
		double s = sum[i] + (double)a[i], q = squares[i] + (double)a[i] * (double)a[i];
		s += (double)b[i];
		q += (double)b[i] * (double)b[i];
		s += (double)c[i];
		q += (double)c[i] * (double)c[i];
		sum[i] = s + (double)d[i];
		squares[i] = q + (double)d[i] * (double)d[i];
	}
	for (size_t i = 0; i < n; i++) {
		low[i] = lower(lower(lower(lower(low[i], a[i]), b[i]), c[i]), d[i]);
		high[i] = higher(higher(higher(higher(high[i], a[i]), b[i]), c[i]), d[i]);
	}
}

MC_INLINE void add_one(const float *restrict a, size_t n, double *restrict sum,
    double *restrict squares, float *restrict low, float *restrict high)
{
	for (size_t i = 0; i < n; i++) {
		sum[i] += (double)a[i];
		squares[i] += (double)a[i] * (double)a[i];
		low[i] = lower(low[i], a[i]);
		high[i] = higher(high[i], a[i]);
	}
}

MC_SIMD
void mc_block_stats_add(const float *x, size_t ldx, const uint32_t *rows, size_t count, size_t n,
    double *sum, double *sum_squares, float *absmax, float *min, float *max)
{
	float low[CHUNK], high[CHUNK], least = *min, most = *max;
	double bad = 0;

	for (size_t c = 0; count > 0 && c < n; c += CHUNK) {
		size_t width = n - c < CHUNK ? n - c : CHUNK, i = 0;

		for (size_t j = 0; j < width; j++) {
			low[j] = INFINITY;
			high[j] = -INFINITY;
		}
		for (; i + 4 <= count; i += 4)
			add_four(row_at(x, ldx, rows, i) + c, row_at(x, ldx, rows, i + 1) + c,
			    row_at(x, ldx, rows, i + 2) + c, row_at(x, ldx, rows, i + 3) + c, width,
			    sum + c, sum_squares + c, low, high);
		for (; i < count; i++)
			add_one(row_at(x, ldx, rows, i) + c, width, sum + c, sum_squares + c, low,
			    high);
		for (size_t j = 0; j < width; j++) {
			least = lower(least, low[j]);
			most = higher(most, high[j]);
			absmax[c + j] = higher(absmax[c + j], higher(high[j], -low[j]));
			bad += sum_squares[c + j];
		}
	}
	/* Comparisons pass a NaN over, sums keep it; squares of finite floats cannot overflow. */
	*min = isnan(bad) ? NAN : least;
	*max = isnan(bad) ? NAN : most;
}
