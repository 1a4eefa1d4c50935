/*
 * alloc.h - checked sizes and small allocations
 *
 * For records that live long and are owned by one struct. Numeric memory comes from arena.h.
 */
#ifndef MC_ALLOC_H
#define MC_ALLOC_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/error.h"

/* Product or sum of untrusted sizes: false on overflow (no error text; the caller names the thing). */
bool mc_mul(uint64_t a, uint64_t b, uint64_t *ret_product) MC_CHECKED;
bool mc_add(uint64_t a, uint64_t b, uint64_t *ret_sum) MC_CHECKED;

/* count * size zeroed bytes, or NULL with NO_MEMORY naming `what`. Owned by the caller: free(). */
void *mc_alloc(size_t count, size_t size, const char *what, struct mc_error *err) MC_CHECKED;

/* Grows *ptr (may be NULL) so that it holds at least `need` items; *capacity follows, new items are
 * zeroed. Fails with NO_MEMORY and leaves *ptr as it was. */
bool mc_grow(void **ptr, size_t *capacity, size_t need, size_t item_size, const char *what,
    struct mc_error *err) MC_CHECKED;

/* strdup with an error. Owned by the caller: free(). */
char *mc_strdup(const char *text, struct mc_error *err) MC_CHECKED;

/* asprintf with an error. Owned by the caller: free(). */
char *mc_format(struct mc_error *err, const char *fmt, ...) MC_PRINTF(2, 3) MC_CHECKED;

/* The candidate nearest to `word` by edit distance, if near enough to be a typing error, else NULL. */
const char *mc_nearest(const char *word, const char *const *candidates, size_t count);

#endif
