/*
 * sequence.h - which sequence of a batch a token belongs to
 */
#ifndef MC_CALIB_SEQUENCE_H
#define MC_CALIB_SEQUENCE_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/error.h"

/* The sequence of a token: the last that starts at or before it and is not empty. */
static inline size_t mc_sequence_of(const uint64_t *start, size_t sequences, uint64_t token)
{
	size_t low = 0, high = sequences;

	mc_assert(sequences > 0 && token >= start[0] && token < start[sequences]);
	while (high - low > 1) {
		size_t middle = low + (high - low) / 2;
		if (start[middle] <= token)
			low = middle;
		else
			high = middle;
	}
	return low;
}

#endif
