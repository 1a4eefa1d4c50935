/*
 * exponential.h - the natural exponential as straight-line code
 *
 * libm's is a call for every element, which the compiler cannot turn into vectors. Here
 * exp(x) = 2^n exp(r), n the integer nearest to x / ln 2, |r| <= ln 2 / 2, exp(r) by its power
 * series. ln 2 is split in two so that n * HIGH is exact. The power of two is applied in two
 * halves: one alone could not reach the subnormals or the step to infinity.
 */
#ifndef MC_EXPONENTIAL_H
#define MC_EXPONENTIAL_H

#include "moecal/simd.h"

/*
 * At most 4 units in the last place off, subnormals included; exp(-inf) = 0, exp(+inf) = +inf, NaN
 * stays NaN (both limits below compare false with it).
 */
MC_INLINE float mc_exp_f32(float x)
{
	const float log2_e = 0x1.715476p+0f;
	const float ln2_high = 0x1.62e4p-1f, ln2_low = 0x1.7f7d1cp-20f;
	const float to_integer = 0x1.8p23f; /* adding it leaves the integer in the low bits */

	x = x > 89.0f ? 89.0f : x;     /* exp(89) is past the largest float */
	x = x < -104.0f ? -104.0f : x; /* exp(-104) is below half of the smallest */
	float shifted = x * log2_e + to_integer;
	float n = shifted - to_integer;
	float r = (x - n * ln2_high) - n * ln2_low;
	float p = 1.0f / 5040;
	p = p * r + 1.0f / 720;
	p = p * r + 1.0f / 120;
	p = p * r + 1.0f / 24;
	p = p * r + 1.0f / 6;
	p = p * r + 0.5f;
	p = (p * r) * r + r;
	p = p + 1.0f;
	int32_t power = (int32_t)(mc_float_bits(shifted) - mc_float_bits(to_integer));
	int32_t half = power >> 1;
	float scale_a = mc_bits_float(((uint32_t)half + 127u) << 23);
	float scale_b = mc_bits_float(((uint32_t)power - (uint32_t)half + 127u) << 23);
	return p * scale_a * scale_b;
}

/*
 * The same in float64 for x <= 0, within 1e-15 of the value; below -700 the result is 0 (that of
 * a term that cannot matter in a sum which holds exp(0)). NaN stays NaN.
 */
MC_INLINE double mc_exp_f64_negative(double x)
{
	static const double inverse_factorial[] = {1.0 / 479001600, 1.0 / 39916800, 1.0 / 3628800,
	    1.0 / 362880, 1.0 / 40320, 1.0 / 5040, 1.0 / 720, 1.0 / 120, 1.0 / 24, 1.0 / 6, 0.5,
	    1.0, 1.0};
	const double log2_e = 0x1.71547652b82fep+0;
	const double ln2_high = 0x1.62e42fefap-1, ln2_low = 0x1.cf79abc9e3b3ap-40;
	const double to_integer = 0x1.8p52;

	double keep = x < -700.0 ? 0.0 : 1.0;
	x = x < -700.0 ? -700.0 : x;
	double shifted = x * log2_e + to_integer;
	double n = shifted - to_integer;
	double r = (x - n * ln2_high) - n * ln2_low;
	double p = inverse_factorial[0];
#pragma GCC unroll 16
	for (size_t i = 1; i < sizeof(inverse_factorial) / sizeof(inverse_factorial[0]); i++)
		p = p * r + inverse_factorial[i];
	uint64_t bits, zero;
	memcpy(&bits, &shifted, sizeof(bits));
	memcpy(&zero, &to_integer, sizeof(zero));
	bits = (bits - zero + 1023u) << 52;
	double scale;
	memcpy(&scale, &bits, sizeof(scale));
	return p * scale * keep;
}

#endif
