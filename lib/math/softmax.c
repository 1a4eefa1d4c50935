/*
 * softmax.c - softmax of a row, cross entropy of a row of logits
 */
#include "softmax.h"

#include <math.h>

#include "exponential.h"
#include "moecal/error.h"
#include "moecal/ops.h"

/* A NaN may be passed over here: its own term is NaN then, and so is the sum. */
MC_SIMD static float largest(const float *x, size_t n, float scale)
{
	float lane[MC_LANES];
	size_t i = 0;
	for (size_t l = 0; l < MC_LANES; l++)
		lane[l] = x[0] * scale;
	for (; i + MC_LANES <= n; i += MC_LANES)
		for (size_t l = 0; l < MC_LANES; l++)
			lane[l] = x[i + l] * scale > lane[l] ? x[i + l] * scale : lane[l];
	for (size_t l = 0; i < n; i++, l++)
		lane[l] = x[i] * scale > lane[l] ? x[i] * scale : lane[l];
	return mc_fold_max(lane);
}

MC_SIMD static void make_terms(float *x, size_t n, float scale, float offset)
{
	for (size_t i = 0; i < n; i++)
		x[i] = mc_exp_f32(x[i] * scale - offset);
}

MC_SIMD static double sum(const float *x, size_t n)
{
	double lane[MC_LANES] = {0};
	size_t i = 0;
	for (; i + MC_LANES <= n; i += MC_LANES)
		for (size_t l = 0; l < MC_LANES; l++)
			lane[l] += (double)x[i + l];
	for (size_t l = 0; i < n; i++, l++)
		lane[l] += (double)x[i];
	return mc_fold_sum(lane);
}

MC_SIMD static void divide(float *x, size_t n, double divisor)
{
	double factor = 1.0 / divisor;
	for (size_t i = 0; i < n; i++)
		x[i] = (float)((double)x[i] * factor);
}

double mc_softmax_terms(float *row, size_t n, float scale)
{
	make_terms(row, n, scale, largest(row, n, scale));
	return sum(row, n);
}

void mc_softmax(float *row, size_t n)
{
	if (n > 0)
		divide(row, n, mc_softmax_terms(row, n, 1.0f));
}

MC_SIMD static double sum_exponentials(const float *x, size_t n, double offset)
{
	double lane[MC_LANES] = {0};
	size_t i = 0;
	for (; i + MC_LANES <= n; i += MC_LANES)
		for (size_t l = 0; l < MC_LANES; l++)
			lane[l] += mc_exp_f64_negative((double)x[i + l] - offset);
	for (size_t l = 0; i < n; i++, l++)
		lane[l] += mc_exp_f64_negative((double)x[i] - offset);
	return mc_fold_sum(lane);
}

double mc_cross_entropy(const float *logits, size_t n, size_t target)
{
	mc_assert(target < n);
	double offset = (double)largest(logits, n, 1.0f);
	return log(sum_exponentials(logits, n, offset)) - ((double)logits[target] - offset);
}
