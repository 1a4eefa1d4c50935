/*
 * bpe.c - the definition of byte-pair merging, for the tests
 */
#include "reference/bpe.h"

#include <stdbool.h>

static bool merge_first(
    uint32_t *symbols, size_t count, const struct naive_merge *merges, size_t merges_count)
{
	for (size_t rank = 0; rank < merges_count; rank++) {
		for (size_t i = 0; i + 1 < count; i++) {
			if (symbols[i] != merges[rank].left || symbols[i + 1] != merges[rank].right)
				continue;
			symbols[i] = merges[rank].result;
			for (size_t k = i + 1; k + 1 < count; k++)
				symbols[k] = symbols[k + 1];
			return true;
		}
	}
	return false;
}

size_t naive_bpe(
    uint32_t *symbols, size_t count, const struct naive_merge *merges, size_t merges_count)
{
	while (merge_first(symbols, count, merges, merges_count))
		count--;
	return count;
}
