/*
 * kernel.h - the element loops of quantization, for one dtype and one kind of code at a time
 *
 * Callers loop over blocks of MC_LANES values, a constant count, so that they become vector code at
 * any optimisation. Every single operation is rounded to the dtype that the reference would compute
 * in, as its tensors are. Values must be finite, which the callers see to.
 */
#ifndef MC_QUANT_KERNEL_H
#define MC_QUANT_KERNEL_H

#include "moecal/qparams.h"

#include "moecal/simd.h"

/* v rounded to BF16, nearest, ties to even; of NaN only the one that arithmetic makes. */
MC_INLINE float mc_round_bf16(float v)
{
	uint32_t bits = mc_float_bits(v);
	return mc_bits_float((bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u);
}

/* v rounded to F16: below 2^-14 in steps of 2^-24, from 65520 on infinity. */
MC_INLINE float mc_round_f16(float v)
{
	uint32_t bits = mc_float_bits(v);
	uint32_t a = bits & 0x7fffffffu;
	float normal = mc_bits_float((bits + 0xfffu + ((bits >> 13) & 1u)) & 0xffffe000u);
	uint32_t sign = bits & 0x80000000u;
	float subnormal = mc_bits_float(mc_float_bits((mc_bits_float(a) + 0.75f) - 0.75f) | sign);
	float infinite = a > 0x7f800000u ? v : mc_bits_float(0x7f800000u | sign);
	float finite = a < 0x38800000u ? subnormal : normal;
	return a >= 0x477ff000u ? infinite : finite;
}

MC_INLINE float mc_round_dt(enum mc_dtype dt, float v)
{
	if (dt == MC_BF16)
		return mc_round_bf16(v);
	if (dt == MC_F16)
		return mc_round_f16(v);
	return v;
}

/* Codes are int32 in these functions: of one width with the floats beside them. E4M3: the byte,
 * 0..255. */

/* |v| <= 448 */
MC_INLINE int32_t mc_encode_e4m3(float v)
{
	uint32_t bits = mc_float_bits(v);
	uint32_t a = bits & 0x7fffffffu;
	uint32_t normal = (a + 0x7ffffu + ((a >> 20) & 1u) - (120u << 23)) >> 20;
	uint32_t subnormal = mc_float_bits(mc_bits_float(a) + 16384.0f) - 0x46800000u;
	return (int32_t)((a < 0x3c800000u ? subnormal : normal) | (bits >> 24 & 0x80u));
}

MC_INLINE float mc_decode_e4m3(int32_t code)
{
	uint32_t magnitude = (uint32_t)code & 0x7fu;
	uint32_t normal = magnitude == 0x7f ? 0x7fc00000u : (magnitude << 20) + (120u << 23);
	uint32_t subnormal = mc_float_bits((float)(int32_t)magnitude * 0x1p-9f);
	uint32_t sign = ((uint32_t)code & 0x80u) << 24;
	return mc_bits_float((magnitude < 8 ? subnormal : normal) | sign);
}

/* |v| <= 6: the nibble. A negative v that rounds to zero keeps its sign; -0 itself is not met. */
MC_INLINE int32_t mc_encode_e2m1(float v)
{
	uint32_t bits = mc_float_bits(v);
	uint32_t a = bits & 0x7fffffffu;
	uint32_t normal = (a + 0x1fffffu + ((a >> 22) & 1u) - (126u << 23)) >> 22;
	uint32_t subnormal = mc_float_bits(mc_bits_float(a) + 4194304.0f) - 0x4a800000u;
	return (int32_t)((a < 0x3f800000u ? subnormal : normal) | (bits >> 28 & 0x8u));
}

MC_INLINE float mc_decode_e2m1(int32_t code)
{
	uint32_t magnitude = (uint32_t)code & 0x7u;
	uint32_t normal = (magnitude << 22) + (126u << 23);
	uint32_t subnormal = mc_float_bits((float)(int32_t)magnitude * 0.5f);
	uint32_t sign = ((uint32_t)code & 0x8u) << 28;
	return mc_bits_float((magnitude < 2 ? subnormal : normal) | sign);
}

enum mc_code_kind { MC_CODE_INT, MC_CODE_E4M3, MC_CODE_E2M1 };

MC_INLINE enum mc_code_kind mc_code_kind(const struct mc_quant_args *args)
{
	return args->type == MC_QUANT_INT ? MC_CODE_INT
	       : args->num_bits == 4      ? MC_CODE_E2M1
					  : MC_CODE_E4M3;
}

/* What a run of values shares. */
struct mc_run {
	float scale, zero; /* zero: +0 when symmetric, so that -0 becomes +0 as in the reference */
	float min, max;    /* of codes */
};

MC_INLINE int32_t mc_code(enum mc_code_kind kind, enum mc_dtype dt, struct mc_run run, float x)
{
	float v = mc_round_dt(dt, mc_round_dt(dt, x / run.scale) + run.zero);

	v = v < run.min ? run.min : v;
	v = v > run.max ? run.max : v;
	if (kind == MC_CODE_E4M3)
		return mc_encode_e4m3(v);
	if (kind == MC_CODE_E2M1)
		return mc_encode_e2m1(v);
	/* the last place of 3 * 2^22 is 1: adding it rounds, and the low bits are the integer */
	return (int32_t)(mc_float_bits(v + 12582912.0f) - 0x4b400000u);
}

MC_INLINE float mc_value(enum mc_code_kind kind, enum mc_dtype dt, struct mc_run run, int32_t code)
{
	float v = kind == MC_CODE_E4M3   ? mc_decode_e4m3(code)
		  : kind == MC_CODE_E2M1 ? mc_decode_e2m1(code)
					 : (float)code;

	return mc_round_dt(dt, mc_round_dt(dt, v - run.zero) * run.scale);
}

/* One function for each dtype and each kind of code: X(name, kind, dt). */
#define MC_KERNELS(X, stem)                                                                        \
	X(stem##_int_f32, MC_CODE_INT, MC_F32)                                                     \
	X(stem##_int_bf16, MC_CODE_INT, MC_BF16)                                                   \
	X(stem##_int_f16, MC_CODE_INT, MC_F16)                                                     \
	X(stem##_fp8_f32, MC_CODE_E4M3, MC_F32)                                                    \
	X(stem##_fp8_bf16, MC_CODE_E4M3, MC_BF16)                                                  \
	X(stem##_fp8_f16, MC_CODE_E4M3, MC_F16)                                                    \
	X(stem##_fp4_f32, MC_CODE_E2M1, MC_F32)                                                    \
	X(stem##_fp4_bf16, MC_CODE_E2M1, MC_BF16)                                                  \
	X(stem##_fp4_f16, MC_CODE_E2M1, MC_F16)

/* The table of them, by kind and by mc_kernel_dtype. */
#define MC_KERNEL_TABLE(stem)                                                                      \
	{                                                                                          \
		{stem##_int_f32, stem##_int_bf16, stem##_int_f16},                                 \
		    {stem##_fp8_f32, stem##_fp8_bf16, stem##_fp8_f16},                             \
		    {stem##_fp4_f32, stem##_fp4_bf16, stem##_fp4_f16},                             \
	}

MC_INLINE size_t mc_kernel_dtype(enum mc_dtype dt)
{
	return dt == MC_BF16 ? 1 : dt == MC_F16 ? 2 : 0;
}

#endif
