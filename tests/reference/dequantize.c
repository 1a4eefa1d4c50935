/*
 * dequantize.c - see dequantize.h
 */
#include "reference/dequantize.h"

#include <math.h>

static double operation(const struct ref_stored *s, double v)
{
	return s->dt == NULL ? (float)v : ref_round(s->dt, (float)v);
}

/* Number `index` of a stream of `bits` wide numbers whose words stand `stride` apart. */
static double field(const uint32_t *words, size_t stride, size_t index, int bits)
{
	double value = 0;

	for (int b = 0; b < bits; b++) {
		size_t at = index * (size_t)bits + (size_t)b;
		if ((words[at / 32 * stride] >> (at % 32)) & 1)
			value += ldexp(1, b);
	}
	return value - ldexp(1, bits - 1);
}

double ref_code(const struct ref_stored *s, size_t row, size_t col)
{
	if (s->bits == 0)
		return ref_decode(&ref_e4m3, s->bytes[row * s->cols + col]);
	if (s->words == NULL)
		return (int8_t)s->bytes[row * s->cols + col];
	size_t words = (s->cols * (size_t)s->bits + 31) / 32;
	return field(s->words + row * words, 1, col, s->bits);
}

double ref_dequantized(const struct ref_stored *s, size_t row, size_t col)
{
	size_t scale_cols = (s->cols + s->width - 1) / s->width, group = col / s->width;
	double zero = s->zeros == NULL ? 0 : field(s->zeros + group, scale_cols, row, s->bits);
	double scale = s->scale[row / s->band * scale_cols + group];

	return operation(s, operation(s, ref_code(s, row, col) - zero) * scale);
}
