/*
 * simd.h - how loops over elements become vector code without changing a bit
 *
 * A function marked MC_SIMD is compiled once for each width of vectors; the loader picks the widest
 * that the machine has. So that all copies give the same bits, a sum or a maximum is never left to
 * the compiler's order: it is kept in MC_LANES partial results, element i in lane i % MC_LANES,
 * which are added as a tree at the end. Contraction to fused multiply-add is off in the whole
 * program.
 */
#ifndef MC_SIMD_H
#define MC_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* The loader calls the resolvers of such copies before a sanitizer is ready: those builds define
 * MC_NO_CLONES. */
#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ >= 12 && defined(__x86_64__) &&           \
    !defined(MC_NO_CLONES)
#define MC_SIMD __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define MC_SIMD
#endif

#define MC_INLINE static inline __attribute__((always_inline))

#define MC_LANES 16

/* The fixed tree: lane l takes lane l + half, until one is left. */
MC_INLINE double mc_fold_sum(double lane[MC_LANES])
{
	for (size_t half = MC_LANES / 2; half > 0; half /= 2)
		for (size_t l = 0; l < half; l++)
			lane[l] += lane[l + half];
	return lane[0];
}

MC_INLINE float mc_fold_max(float lane[MC_LANES])
{
	for (size_t half = MC_LANES / 2; half > 0; half /= 2)
		for (size_t l = 0; l < half; l++)
			lane[l] = lane[l + half] > lane[l] ? lane[l + half] : lane[l];
	return lane[0];
}

MC_INLINE uint32_t mc_float_bits(float v)
{
	uint32_t bits;
	memcpy(&bits, &v, sizeof(bits));
	return bits;
}

MC_INLINE float mc_bits_float(uint32_t bits)
{
	float v;
	memcpy(&v, &bits, sizeof(v));
	return v;
}

#endif
