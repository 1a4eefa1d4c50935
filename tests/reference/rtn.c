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

static void code_range(const struct ref_rtn *how, double *low, double *high)
{
	*high = how->bits == 0 ? 448 : how->bits < 0 ? 6 : ldexp(1, how->bits - 1) - 1;
	*low = how->bits <= 0 ? -*high : -ldexp(1, how->bits - 1);
}

void ref_rtn_range(const struct ref_rtn *how, double min, double max, double *scale, double *zero)
{
	double low, high;

	code_range(how, &low, &high);
	min = fmin(min, 0);
	max = fmax(max, 0);
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
}

void ref_rtn_codes(const struct ref_rtn *how, const float *x, size_t n, double scale, double zero,
    double *codes, double *values)
{
	double low, high;

	code_range(how, &low, &high);
	for (size_t i = 0; i < n; i++) {
		double v = operation(how, operation(how, x[i] / scale) + zero);
		v = fmin(fmax(v, low), high);
		codes[i] = how->bits == 0  ? ref_round(&ref_e4m3, v)
			   : how->bits < 0 ? ref_round(&ref_e2m1, v)
					   : rint(v);
		values[i] = operation(how, operation(how, codes[i] - zero) * scale);
	}
}

void ref_rtn_group(const struct ref_rtn *how, const float *x, size_t n, double *scale, double *zero,
    double *codes, double *values)
{
	double min = 0, max = 0;

	for (size_t i = 0; i < n; i++) {
		min = fmin(min, x[i]);
		max = fmax(max, x[i]);
	}
	ref_rtn_range(how, min, max, scale, zero);
	ref_rtn_codes(how, x, n, *scale, *zero, codes, values);
}

double ref_mx_scale(int bits, double absmax)
{
	int exponent;
	double significand;

	if (absmax == 0)
		return 0x1p-127;
	significand = 2 * frexp(absmax, &exponent); /* 1 to 2 */
	exponent += (significand >= 1.75) - 1 - (bits == 0 ? 8 : 2);
	return ldexp(1, exponent < -127 ? -127 : exponent);
}

double ref_global_scale(const struct ref_format *dt, double absmax)
{
	struct ref_rtn how = {.dt = dt};
	double g = operation(&how, operation(&how, 1 / absmax) * 2688);

	return isfinite(g) ? g : 1;
}

double ref_local_scale(const struct ref_format *dt, double absmax, double global)
{
	struct ref_rtn how = {.dt = dt};
	double scale = (float)(global * operation(&how, absmax / 6));

	scale = ref_round(&ref_e4m3, scale);
	return scale == 0 ? 0.125 : scale;
}
