/*
 * dtype.c - names of number formats, conversions between them
 *
 * Conversions are written on the bits and without branches, so that the loops over many values
 * become vector code. Adding a power of two whose last place is the step of the target rounds to
 * nearest, ties to even: that is how the subnormals of the small formats are made.
 */
#include "moecal/dtype.h"

#include <string.h>

#include "moecal/simd.h"

static const struct {
	const char *name;
	unsigned bits;
} dtypes[] = {
#define X(id, name, bits) [id] = {name, bits},
    MC_DTYPES(X)
#undef X
};

const char *mc_dtype_name(enum mc_dtype dtype)
{
	mc_assert((unsigned)dtype < MC_DTYPE_COUNT);
	return dtypes[dtype].name;
}

unsigned mc_dtype_bits(enum mc_dtype dtype)
{
	mc_assert((unsigned)dtype < MC_DTYPE_COUNT);
	return dtypes[dtype].bits;
}

bool mc_dtype_find(const char *name, enum mc_dtype *ret_dtype)
{
	for (unsigned i = 0; i < MC_DTYPE_COUNT; i++) {
		if (strcmp(dtypes[i].name, name) == 0) {
			*ret_dtype = (enum mc_dtype)i;
			return true;
		}
	}
	return false;
}

bool mc_dtype_is_weight(enum mc_dtype dtype)
{
	return dtype == MC_F32 || dtype == MC_F16 || dtype == MC_BF16;
}

/* --- one value -------------------------------------------------------------------------------- */

MC_INLINE float widen_bf16(uint16_t v)
{
	return mc_bits_float((uint32_t)v << 16);
}

MC_INLINE uint16_t narrow_bf16(float v)
{
	uint32_t bits = mc_float_bits(v);
	uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
	uint32_t quiet = (bits >> 16) | 0x40u;
	return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

MC_INLINE float widen_f16(uint16_t v)
{
	/* The exponent is moved to its new place and mended by a product, which also normalises. */
	uint32_t magnitude = (uint32_t)(v & 0x7fffu) << 13;
	uint32_t finite = mc_float_bits(mc_bits_float(magnitude) * 0x1p112f);
	uint32_t bits = magnitude >= 0x0f800000u ? magnitude | 0x7f800000u : finite;
	return mc_bits_float(bits | (uint32_t)(v & 0x8000u) << 16);
}

MC_INLINE uint16_t narrow_f16(float v)
{
	uint32_t bits = mc_float_bits(v);
	uint32_t a = bits & 0x7fffffffu;
	uint32_t normal = (a + 0xfffu + ((a >> 13) & 1u) - (112u << 23)) >> 13;
	uint32_t subnormal = mc_float_bits(mc_bits_float(a) + 0.5f) - 0x3f000000u;
	uint32_t code = a < 0x38800000u ? subnormal : normal; /* 2^-14 */
	code = a >= 0x477ff000u ? 0x7c00u : code;             /* 65520 rounds to infinity */
	code = a > 0x7f800000u ? 0x7e00u | ((a >> 13) & 0x1ffu) : code;
	return (uint16_t)(code | (bits >> 16 & 0x8000u));
}

MC_INLINE float widen_e4m3(uint8_t v)
{
	uint32_t magnitude = (uint32_t)(v & 0x7fu);
	uint32_t finite = mc_float_bits(mc_bits_float(magnitude << 20) * 0x1p120f);
	uint32_t bits = magnitude == 0x7fu ? 0x7fc00000u : finite;
	return mc_bits_float(bits | (uint32_t)(v & 0x80u) << 24);
}

MC_INLINE uint8_t narrow_e4m3(float v)
{
	uint32_t bits = mc_float_bits(v);
	uint32_t a = bits & 0x7fffffffu;
	uint32_t normal = (a + 0x7ffffu + ((a >> 20) & 1u) - (120u << 23)) >> 20;
	uint32_t subnormal = mc_float_bits(mc_bits_float(a) + 16384.0f) - 0x46800000u;
	uint32_t code = a < 0x3c800000u ? subnormal : normal; /* 2^-6 */
	code = a >= 0x43e00000u ? 0x7eu : code;               /* 448, the largest */
	code = a > 0x7f800000u ? 0x7fu : code;
	return (uint8_t)(code | (bits >> 24 & 0x80u));
}

float mc_bf16_to_f32(uint16_t v)
{
	return widen_bf16(v);
}

uint16_t mc_f32_to_bf16(float v)
{
	return narrow_bf16(v);
}

float mc_f16_to_f32(uint16_t v)
{
	return widen_f16(v);
}

uint16_t mc_f32_to_f16(float v)
{
	return narrow_f16(v);
}

float mc_e4m3_to_f32(uint8_t v)
{
	return widen_e4m3(v);
}

uint8_t mc_f32_to_e4m3(float v)
{
	return narrow_e4m3(v);
}

float mc_e2m1_to_f32(uint8_t nibble)
{
	static const float value[16] = {0.0f, 0.5f, 1.0f, 1.5f, 2.0f, 3.0f, 4.0f, 6.0f, -0.0f,
	    -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
	return value[nibble & 0xf];
}

uint8_t mc_f32_to_e2m1(float v)
{
	float a = v < 0 ? -v : v;
	/* How many thresholds lie below; where a tie goes up to the even code the threshold
	 * belongs. */
	unsigned code = (a > 0.25f) + (a >= 0.75f) + (a > 1.25f) + (a >= 1.75f) + (a > 2.5f) +
			(a >= 3.5f) + (a > 5.0f);
	return (uint8_t)(code | (v < 0 ? 8u : 0u));
}

float mc_e8m0_to_f32(uint8_t v)
{
	if (v == 255)
		return mc_bits_float(0x7fc00000u);
	return mc_bits_float(v == 0 ? 0x00400000u : (uint32_t)v << 23); /* 2^-127 is subnormal */
}

float mc_round_to(enum mc_dtype dtype, float v)
{
	if (dtype == MC_F32)
		return v;
	if (dtype == MC_BF16)
		return widen_bf16(narrow_bf16(v));
	if (dtype == MC_F16)
		return widen_f16(narrow_f16(v));
	mc_assert(dtype == MC_F8_E4M3);
	return widen_e4m3(narrow_e4m3(v));
}

/* --- many values ------------------------------------------------------------------------------ */

MC_SIMD static void widen_many_bf16(const unsigned char *from, float *to, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v;
		memcpy(&v, from + 2 * i, sizeof(v));
		to[i] = widen_bf16(v);
	}
}

MC_SIMD static void widen_many_f16(const unsigned char *from, float *to, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v;
		memcpy(&v, from + 2 * i, sizeof(v));
		to[i] = widen_f16(v);
	}
}

MC_SIMD static void widen_many_e4m3(const unsigned char *from, float *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = widen_e4m3(from[i]);
}

MC_SIMD static void narrow_many_bf16(const float *from, unsigned char *to, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v = narrow_bf16(from[i]);
		memcpy(to + 2 * i, &v, sizeof(v));
	}
}

MC_SIMD static void narrow_many_f16(const float *from, unsigned char *to, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint16_t v = narrow_f16(from[i]);
		memcpy(to + 2 * i, &v, sizeof(v));
	}
}

MC_SIMD static void narrow_many_e4m3(const float *from, unsigned char *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = narrow_e4m3(from[i]);
}

void mc_widen(enum mc_dtype from_dtype, const void *from, float *to, size_t n)
{
	if (n == 0)
		return;
	if (from_dtype == MC_F32) {
		memcpy(to, from, n * sizeof(float));
	} else if (from_dtype == MC_BF16) {
		widen_many_bf16(from, to, n);
	} else if (from_dtype == MC_F16) {
		widen_many_f16(from, to, n);
	} else {
		mc_assert(from_dtype == MC_F8_E4M3);
		widen_many_e4m3(from, to, n);
	}
}

void mc_narrow(const float *from, enum mc_dtype to_dtype, void *to, size_t n)
{
	if (n == 0)
		return;
	if (to_dtype == MC_F32) {
		memcpy(to, from, n * sizeof(float));
	} else if (to_dtype == MC_BF16) {
		narrow_many_bf16(from, to, n);
	} else if (to_dtype == MC_F16) {
		narrow_many_f16(from, to, n);
	} else {
		mc_assert(to_dtype == MC_F8_E4M3);
		narrow_many_e4m3(from, to, n);
	}
}

void mc_widen_exponents(const void *from, float *to, size_t n)
{
	for (size_t i = 0; i < n; i++)
		to[i] = mc_e8m0_to_f32(((const uint8_t *)from)[i]);
}
