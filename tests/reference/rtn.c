/*
 * rtn.c - round to nearest by its definition: see rtn.h
 */
#include "reference/rtn.h"

#include <math.h>

/* The result of one operation: float32 first, as the reference's kernels compute, then the dtype.
 */
static double operation(const struct ref_rtn *how, double v)
{
	return how->dt == NULL ? (float)v : ref_round(how->dt, (float)v);
}

void ref_rtn_group(const struct ref_rtn *how, const float *x, size_t n, double *scale, double *zero,
    double *codes, double *values)
{
	double low = how->bits == 0 ? -448 : -ldexp(1, how->bits - 1);
	double high = how->bits == 0 ? 448 : ldexp(1, how->bits - 1) - 1;
	double min = 0, max = 0;

	for (size_t i = 0; i < n; i++) {
		min = fmin(min, x[i]);
		max = fmax(max, x[i]);
	}
	*zero = 0;
	if (how->symmetric) {
		*scale = operation(how, fmax(-min, max) / ((high - low) / 2));
	} else {
		*scale = operation(how, operation(how, max - min) / (high - low));
		double z = operation(how, low - operation(how, min / *scale));
		*zero = isnan(z) ? 0 : rint(fmin(fmax(z, low), high));
	}
	if (*scale == 0)
		*scale = ldexp(1, how->dt == NULL ? -23 : -how->dt->mantissa_bits);
	for (size_t i = 0; i < n; i++) {
		double v = operation(how, operation(how, x[i] / *scale) + *zero);
		v = fmin(fmax(v, low), high);
		codes[i] = how->bits == 0 ? ref_round(&ref_e4m3, v) : rint(v);
		values[i] = operation(how, operation(how, codes[i] - *zero) * *scale);
	}
}
