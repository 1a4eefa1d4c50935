/*
 * pool.h - the one thread pool
 *
 * Split the output, never the sum: items own disjoint results, and what an item computes does not
 * depend on the number of workers. So results have the same bits for any number of workers.
 */
#ifndef MC_POOL_H
#define MC_POOL_H

#include <stddef.h>

#include "moecal/error.h"

struct mc_pool;

/* worker is in 0..workers-1 and names the scratch that the item may use. */
typedef bool mc_pool_fn(void *ctx, size_t item, unsigned worker, struct mc_error *err);

/* `workers` >= 1 counts the calling thread. Owned: mc_pool_free. Errors: INVALID, NO_MEMORY, IO. */
struct mc_pool *mc_pool_new(unsigned workers, struct mc_error *err) MC_CHECKED;
void mc_pool_free(struct mc_pool *pool); /* NULL is fine */
unsigned mc_pool_workers(const struct mc_pool *pool);

/*
 * Runs fn(ctx, item, worker) for items 0..n-1, taken in that order, and waits for all of them; the
 * calling thread works too. After a failure no new item is started. Of several errors that of the
 * lowest item is kept. Asserted: no nesting, one caller at a time.
 */
bool mc_pool_run(struct mc_pool *pool, size_t n, mc_pool_fn *fn, void *ctx, struct mc_error *err)
    MC_CHECKED;

#endif
