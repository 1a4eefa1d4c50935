/*
 * bpe.h - the definition of byte-pair merging, for the tests
 */
#ifndef REFERENCE_BPE_H
#define REFERENCE_BPE_H

#include <stddef.h>
#include <stdint.h>

struct naive_merge { /* rank = place in the list */
	uint32_t left, right, result;
};

/* Merges symbols in place, again and again the leftmost pair of the lowest rank; returns how many
 * are left. */
size_t naive_bpe(
    uint32_t *symbols, size_t count, const struct naive_merge *merges, size_t merges_count);

#endif
