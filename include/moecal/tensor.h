/*
 * tensor.h - a typed block of numbers in memory, row-major, contiguous
 */
#ifndef MC_TENSOR_H
#define MC_TENSOR_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/dtype.h"

#define MC_MAX_RANK 8

struct mc_tensor {
	enum mc_dtype dtype;
	unsigned rank;
	uint64_t shape[MC_MAX_RANK];
	void *data; /* owner: whoever made it, usually an arena */
};

uint64_t mc_tensor_elements(const struct mc_tensor *tensor); /* 1 for rank 0 */
uint64_t mc_tensor_bytes(const struct mc_tensor *tensor);

/* "[128, 2048]" into text; returns text. */
const char *mc_shape_text(unsigned rank, const uint64_t *shape, char *text, size_t size);

/*
 * One linear's weight as forward and quant use it: y = x W' (+ b).
 * Shapes: data [rows = outputs N, cols = inputs K] of dtype F32, F16 or BF16; bias f32 [N] or NULL.
 */
struct mc_weight {
	enum mc_dtype dtype;
	size_t rows, cols;
	const void *data;
	const float *bias;
};

#endif
