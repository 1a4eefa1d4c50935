/*
 * norm.c - root mean square norm of rows
 */
#include "moecal/ops.h"

#include <math.h>

#include "moecal/simd.h"

MC_SIMD static double sum_squares(const float *x, size_t n)
{
	double lane[MC_LANES] = {0};
	size_t i = 0;
	for (; i + MC_LANES <= n; i += MC_LANES)
		for (size_t l = 0; l < MC_LANES; l++)
			lane[l] += (double)x[i + l] * (double)x[i + l];
	for (size_t l = 0; i < n; i++, l++)
		lane[l] += (double)x[i] * (double)x[i];
	return mc_fold_sum(lane);
}

/* x and y may be the same row, so no restrict: element i is read before it is written. */
MC_SIMD static void scale_row(const float *x, const float *w, float factor, size_t n, float *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = w[i] * (x[i] * factor);
}

void mc_rms_norm(const float *x, size_t ldx, const float *w, float eps, size_t rows, size_t n,
    float *y, size_t ldy)
{
	for (size_t row = 0; row < rows; row++) {
		double mean = sum_squares(x + row * ldx, n) / (double)n;
		float factor = (float)(1.0 / sqrt(mean + (double)eps));
		scale_row(x + row * ldx, w, factor, n, y + row * ldy);
	}
}
