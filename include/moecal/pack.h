/*
 * pack.h - a quantized weight as the tensors of its checkpoint format, and back
 *
 * Formats of compressed-tensors, section 7 of its layout: names, dtypes, shapes, bit order.
 */
#ifndef MC_PACK_H
#define MC_PACK_H

#include "moecal/rtn.h"

#define MC_MAX_PACKED 8

/* One tensor of a module: suffix "weight_packed", ... */
struct mc_packed_tensor {
	const char *suffix; /* static */
	struct mc_tensor tensor;
};
struct mc_packed {
	size_t count;
	struct mc_packed_tensor items[MC_MAX_PACKED];
};

/* What tensors a module of this scheme has, without data: for plans and checks. `dt` is the weight's
 * dtype; includes input_scale (and input_zero_point) for static inputs, input_global_scale for
 * dynamic "local" ones. Errors: UNSUPPORTED where the scheme's format does not store such weights. */
bool mc_pack_layout(const struct mc_scheme *scheme, enum mc_dtype dt, size_t rows, size_t cols,
    const char *name, struct mc_packed *ret, struct mc_error *err) MC_CHECKED;

/* The weight's tensors with data from the arena. */
bool mc_pack(const struct mc_scheme *scheme, enum mc_dtype dt, const struct mc_quantized *q,
    const char *name, struct mc_arena *arena, struct mc_packed *ret, struct mc_error *err) MC_CHECKED;

/* The inverse, from tensors with data (any order): codes, scales, zero points into the arena. `rows`,
 * `cols` as the caller expects them. weight_g_idx of older checkpoints is obeyed; ret then points
 * into it. Errors: CORRUPT naming the tensor (missing, shape, dtype). */
bool mc_unpack(const struct mc_scheme *scheme, const struct mc_packed *packed, size_t rows, size_t cols,
    const char *name, struct mc_arena *arena, struct mc_quantized *ret, struct mc_error *err) MC_CHECKED;

/* n values of `bits` (1..8) each, offset by 2^(bits-1), least significant bit first, into int32 words;
 * words = ceil(n * bits / 32), padding bits 0. stride: distance between values (rows packing). */
void mc_pack_bits(const int8_t *codes, size_t stride, size_t n, unsigned bits, uint32_t *words,
    size_t word_stride);
void mc_unpack_bits(const uint32_t *words, size_t word_stride, size_t n, unsigned bits, int8_t *codes,
    size_t stride);

#endif
