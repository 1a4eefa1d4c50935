/*
 * attention_parameters.c - see attention_parameters.h
 */
#include "reference/attention_parameters.h"

#include <math.h>

#include "reference/reference.h"

/* What the observer has seen of heads first .. first + count - 1 after all sequences. */
static void observe(const struct ref_attention_scheme *how, const double *x, size_t width,
    size_t first, size_t count, const uint64_t *start, size_t sequences, double *min, double *max)
{
	bool seen = false;

	for (size_t s = 0; s < sequences; s++) {
		double low = INFINITY, high = -INFINITY, c = how->averaging_constant;
		for (uint64_t t = start[s]; t < start[s + 1]; t++)
			for (size_t i = first; i < first + count; i++) {
				low = fmin(low, x[t * width + i]);
				high = fmax(high, x[t * width + i]);
			}
		if (start[s] == start[s + 1])
			continue;
		if (!seen || how->observer == 'l') {
			*min = low;
			*max = high;
		} else if (how->observer == 's') {
			*min = fmin(*min, low);
			*max = fmax(*max, high);
		} else {
			*min = *min * (1 - c) + low * c;
			*max = *max * (1 - c) + high * c;
		}
		seen = true;
	}
}

void ref_attention_parameters(const struct ref_attention_scheme *how, const double *x, size_t heads,
    size_t head_dim, const uint64_t *start, size_t sequences, double *scale, double *zero)
{
	double low = how->bits == 0 ? -448 : -ldexp(1, how->bits - 1);
	double high = how->bits == 0 ? 448 : ldexp(1, how->bits - 1) - 1;
	size_t parts = how->per_head ? heads : 1, each = heads / parts * head_dim;

	for (size_t i = 0; i < parts; i++) {
		double min = 0, max = 0, z;
		observe(how, x, heads * head_dim, i * each, each, start, sequences, &min, &max);
		min = fmin(min, 0);
		max = fmax(max, 0);
		zero[i] = 0;
		if (how->symmetric) {
			scale[i] = fmax(-min, max) / ((high - low) / 2);
			continue;
		}
		scale[i] = (max - min) / (high - low);
		z = fmin(fmax(low - min / scale[i], low), high);
		zero[i] = how->bits == 0 ? ref_round(&ref_e4m3, z) : rint(z);
	}
}
