/*
 * rotary.c - rotary position embedding: tables and the half-split rotation
 */
#include "moecal/ops.h"

#include <math.h>

#include "moecal/simd.h"

void mc_rotary_table(
    const float *inv_freq, size_t half, size_t tokens, float factor, float *cos_out, float *sin_out)
{
	for (size_t t = 0; t < tokens; t++) {
		for (size_t j = 0; j < half; j++) {
			/* The angle is a float32 product, as in the models' own code. */
			double angle = (double)((float)t * inv_freq[j]);
			cos_out[t * half + j] = factor * (float)cos(angle);
			sin_out[t * half + j] = factor * (float)sin(angle);
		}
	}
}

MC_SIMD static void rotate_row(float *restrict low, float *restrict high, const float *restrict c,
    const float *restrict s, size_t half)
{
	for (size_t j = 0; j < half; j++) {
		float a = low[j], b = high[j];
		low[j] = a * c[j] - b * s[j];
		high[j] = b * c[j] + a * s[j];
	}
}

void mc_rotary_half(
    float *x, size_t ldx, size_t tokens, size_t half, const float *cos_t, const float *sin_t)
{
	for (size_t t = 0; t < tokens; t++)
		rotate_row(
		    x + t * ldx, x + t * ldx + half, cos_t + t * half, sin_t + t * half, half);
}
