/*
 * dtype.h - number formats and exact conversions between them
 *
 * Rounding is to nearest, ties to even, everywhere. E4M3 is the FN variant (no infinities, NaN 0x7F
 * and 0xFF, largest 448); E2M1 largest 6; E8M0 is 2^(e-127). Source: reference tables of OCP FP8/MX.
 */
#ifndef MC_DTYPE_H
#define MC_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/error.h"

/* name = the safetensors code; bits of one element; bits 4 and 6 only where a file holds them */
#define MC_DTYPES(X)                                                                               \
	X(MC_BOOL, "BOOL", 8)                                                                      \
	X(MC_F4, "F4", 4)                                                                          \
	X(MC_F6_E2M3, "F6_E2M3", 6)                                                                \
	X(MC_F6_E3M2, "F6_E3M2", 6)                                                                \
	X(MC_U8, "U8", 8)                                                                          \
	X(MC_I8, "I8", 8)                                                                          \
	X(MC_F8_E5M2, "F8_E5M2", 8)                                                                \
	X(MC_F8_E4M3, "F8_E4M3", 8)                                                                \
	X(MC_F8_E8M0, "F8_E8M0", 8)                                                                \
	X(MC_F8_E4M3FNUZ, "F8_E4M3FNUZ", 8)                                                        \
	X(MC_F8_E5M2FNUZ, "F8_E5M2FNUZ", 8)                                                        \
	X(MC_I16, "I16", 16)                                                                       \
	X(MC_U16, "U16", 16)                                                                       \
	X(MC_F16, "F16", 16)                                                                       \
	X(MC_BF16, "BF16", 16)                                                                     \
	X(MC_I32, "I32", 32)                                                                       \
	X(MC_U32, "U32", 32)                                                                       \
	X(MC_F32, "F32", 32)                                                                       \
	X(MC_C64, "C64", 64)                                                                       \
	X(MC_F64, "F64", 64)                                                                       \
	X(MC_I64, "I64", 64)                                                                       \
	X(MC_U64, "U64", 64)

/* In the order in which the reference writer ranks them (largest rank is written first). */
enum mc_dtype {
#define X(id, name, bits) id,
	MC_DTYPES(X)
#undef X
	MC_DTYPE_COUNT
};

const char *mc_dtype_name(enum mc_dtype dtype); /* "BF16" */
unsigned mc_dtype_bits(enum mc_dtype dtype);
bool mc_dtype_find(const char *name, enum mc_dtype *ret_dtype); /* false: no such code */
/* F32, F16 or BF16: what weights are calibrated in */
bool mc_dtype_is_weight(enum mc_dtype dtype);

/* One value. */
float mc_bf16_to_f32(uint16_t v);
uint16_t mc_f32_to_bf16(float v);  /* NaN stays NaN (quiet) */
float mc_f16_to_f32(uint16_t v);   /* with subnormals */
uint16_t mc_f32_to_f16(float v);   /* overflow -> infinity */
float mc_e4m3_to_f32(uint8_t v);
uint8_t mc_f32_to_e4m3(float v);   /* values past +-448 (after rounding) saturate; NaN -> 0x7F | sign */
float mc_e2m1_to_f32(uint8_t nibble);
uint8_t mc_f32_to_e2m1(float v);   /* saturates at 6; sign(0) drops: +-0 -> 0, tiny negative -> 0x8; NaN -> 0 */
float mc_e8m0_to_f32(uint8_t v);   /* 2^(v-127); 255 -> NaN */

/* v rounded to dtype (F32: unchanged; BF16, F16; F8_E4M3 saturating) and back. */
float mc_round_to(enum mc_dtype dtype, float v);

/* n elements. `from`/`to` need no alignment. widen: F32, F16, BF16, F8_E4M3 -> f32 (others asserted);
 * narrow: f32 -> F32, F16, BF16, F8_E4M3. */
void mc_widen(enum mc_dtype from_dtype, const void *from, float *to, size_t n);
/* E8M0 exponents as the powers of two that they stand for; 255 is NaN. */
void mc_widen_exponents(const void *from, float *to, size_t n);
void mc_narrow(const float *from, enum mc_dtype to_dtype, void *to, size_t n);

#endif
