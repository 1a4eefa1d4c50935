/*
 * power.c - see moecal/power.h
 *
 * x^y = 2^(y log2 x) in float64, without branches, so that loops become vector code. The logarithm
 * is the series of atanh around 1, the exponential that of Taylor around 0; what they leave out is
 * below 2^-40 of the result.
 */

#include "moecal/power.h"

#include <math.h>
#include <string.h>

#include "kernel.h"

/* 2 / (ln 2 * (2 k + 1)) */
#define L0 2.8853900817779268
#define L1 0.96179669392597560
#define L2 0.57707801635558535
#define L3 0.41219858311113240
#define L4 0.32059889797532520
#define L5 0.26230818925253880
#define L6 0.22195308321368667
#define L7 0.19235933878519512

/* (ln 2)^k / k! */
#define E1 0.69314718055994531
#define E2 0.24022650695910072
#define E3 5.5504108664821580e-2
#define E4 9.6181291076284772e-3
#define E5 1.3333558146428443e-3
#define E6 1.5403530393381608e-4
#define E7 1.5252733804059840e-5
#define E8 1.3215486790144309e-6
#define E9 1.0178086009239699e-7
#define E10 7.0549116208011233e-9

MC_INLINE uint64_t double_bits(double v)
{
	uint64_t bits;
	memcpy(&bits, &v, sizeof bits);
	return bits;
}

MC_INLINE double bits_double(uint64_t bits)
{
	double v;
	memcpy(&v, &bits, sizeof v);
	return v;
}

MC_INLINE float raise(float x, double exponent)
{
	/* subnormal numbers are made normal first */
	bool small = x < 0x1p-126f;
	uint32_t bits = mc_float_bits(small ? x * 0x1p64f : x);
	/* x = 2^e m, m from sqrt(1/2) to sqrt(2) */
	int32_t e = (int32_t)(bits - 0x3f3504f3u) >> 23;
	double m = (double)mc_bits_float(bits - ((uint32_t)e << 23));
	double s = (m - 1.0) / (m + 1.0), q = s * s;
	double log2 = s *
		      (L0 +
			  q * (L1 + q * (L2 + q * (L3 + q * (L4 + q * (L5 + q * (L6 + q * L7)))))));
	double t = exponent * ((double)(small ? e - 64 : e) + log2);

	t = t < -400.0 ? -400.0 : t > 400.0 ? 400.0 : t;
	double shifted = t + 0x1.8p52, f = t - (shifted - 0x1.8p52);
	double power =
	    1.0 +
	    f * (E1 +
		    f * (E2 +
			    f * (E3 +
				    f * (E4 +
					    f * (E5 +
						    f * (E6 +
							    f * (E7 +
								    f * (E8 +
									    f * (E9 +
										    f * E10)))))))));
	double two = bits_double((double_bits(shifted) << 52) + 0x3ff0000000000000u);
	float result = (float)(power * two);
	return x == 0.0f ? 0.0f : x > 0x1.fffffep127f ? x : result;
}

#define POWER(name, dt)                                                                            \
	MC_SIMD static void name(double exponent, float *restrict x, size_t n)                     \
	{                                                                                          \
		size_t i = 0;                                                                      \
		for (; i + MC_LANES <= n; i += MC_LANES)                                           \
			for (size_t l = 0; l < MC_LANES; l++)                                      \
				x[i + l] = mc_round_dt(dt, raise(x[i + l], exponent));             \
		for (; i < n; i++)                                                                 \
			x[i] = mc_round_dt(dt, raise(x[i], exponent));                             \
	}
POWER(power_f32, MC_F32)
POWER(power_f16, MC_F16)

/* As the reference: squares, cubes and roots in float32 are not left to the power function. */
MC_SIMD static void square(float *restrict x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = x[i] * x[i];
}

MC_SIMD static void cube(float *restrict x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = (x[i] * x[i]) * x[i];
}

static void look_up(const uint16_t *table, float *x, size_t n)
{
	for (size_t i = 0; i < n; i++)
		x[i] = mc_bits_float((uint32_t)table[mc_float_bits(x[i]) >> 16] << 16);
}

void mc_power_init(struct mc_power *power, enum mc_dtype dt, double exponent, uint16_t *table)
{
	*power = (struct mc_power){.dt = dt, .exponent = mc_round_to(dt, (float)exponent)};
	if (dt != MC_BF16)
		return;
	mc_assert(table != NULL);
	power->table = table;
	/* from the greatest down, until nothing is left of the power; up to infinity */
	memset(table, 0, MC_POWER_TABLE * sizeof *table);
	for (size_t i = 0x7f80; i > 0; i--) {
		float x = mc_bits_float((uint32_t)i << 16);
		float y = raise(x, power->exponent);
		table[i] = mc_f32_to_bf16(y);
		if (table[i] == 0)
			break;
	}
}

void mc_power_apply(const struct mc_power *power, float *x, size_t n)
{
	if (power->table != NULL)
		look_up(power->table, x, n);
	else if (power->exponent == 2.0 && power->dt == MC_F32)
		square(x, n);
	else if (power->exponent == 3.0 && power->dt == MC_F32)
		cube(x, n);
	else
		(power->dt == MC_F16 ? power_f16 : power_f32)(power->exponent, x, n);
}
