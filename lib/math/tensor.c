/*
 * tensor.c - sizes of tensors, shapes as text
 */
#include "moecal/tensor.h"

#include <inttypes.h>
#include <stdio.h>

#include "moecal/alloc.h"

uint64_t mc_tensor_elements(const struct mc_tensor *tensor)
{
	mc_assert(tensor->rank <= MC_MAX_RANK);
	uint64_t elements = 1;
	for (unsigned i = 0; i < tensor->rank; i++)
		mc_assert(mc_mul(elements, tensor->shape[i], &elements));
	return elements;
}

uint64_t mc_tensor_bytes(const struct mc_tensor *tensor)
{
	uint64_t bits;
	mc_assert(mc_mul(mc_tensor_elements(tensor), mc_dtype_bits(tensor->dtype), &bits));
	return bits / 8 + (bits % 8 != 0);
}

const char *mc_shape_text(unsigned rank, const uint64_t *shape, char *text, size_t size)
{
	mc_assert(size > 0);
	size_t used = (size_t)snprintf(text, size, "[");
	for (unsigned i = 0; i < rank && used < size; i++)
		used += (size_t)snprintf(
		    text + used, size - used, "%s%" PRIu64, i == 0 ? "" : ", ", shape[i]);
	if (used < size)
		snprintf(text + used, size - used, "]");
	return text;
}
