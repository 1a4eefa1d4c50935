/*
 * dtype.c - number formats by their definition
 */
#include <math.h>

#include "reference/reference.h"

const struct ref_format ref_bf16 = {8, 7, 127, 0x1.fep127, true};
const struct ref_format ref_f16 = {5, 10, 15, 65504, true};
const struct ref_format ref_e4m3 = {4, 3, 7, 448, false};
const struct ref_format ref_e2m1 = {2, 1, 1, 6, false};

double ref_decode(const struct ref_format *format, unsigned code)
{
	unsigned mantissa = code & ((1u << format->mantissa_bits) - 1);
	unsigned exponent = (code >> format->mantissa_bits) & ((1u << format->exponent_bits) - 1);
	bool negative = code >> (format->mantissa_bits + format->exponent_bits) & 1u;
	double step = ldexp(1, -format->mantissa_bits);
	double v = exponent == 0 ? ldexp(mantissa * step, 1 - format->bias)
				 : ldexp(1 + mantissa * step, (int)exponent - format->bias);
	return negative ? -v : v;
}

double ref_round(const struct ref_format *format, double v)
{
	if (isnan(v) || v == 0)
		return v;
	double magnitude = fabs(v);
	if (!isinf(v)) {
		int exponent = ilogb(magnitude);
		if (exponent < 1 - format->bias)
			exponent = 1 - format->bias;
		double step = ldexp(1, exponent - format->mantissa_bits);
		magnitude = nearbyint(magnitude / step) * step;
	}
	if (magnitude > format->largest)
		magnitude = format->has_infinity ? INFINITY : format->largest;
	return copysign(magnitude, v);
}
