/*
 * rows.c - norms and residual sums of many rows on the pool
 */
#include "block.h"

#include <math.h>
#include <stdio.h>

#include "moecal/ops.h"

/* Rows of an item: enough to be worth the handing out, few enough to stay in the cache. */
#define ITEM_ROWS 64u

void mc_weight_rows(const struct mc_weight *weight, size_t first, size_t count, float *ret)
{
	size_t element = mc_dtype_bits(weight->dtype) / 8;
	const unsigned char *from = weight->data;

	mc_assert(first + count <= weight->rows);
	mc_widen(weight->dtype, from + first * weight->cols * element, ret, count * weight->cols);
}

struct norm_rows {
	const float *x, *w;
	float eps, *y;
	size_t rows, n;
	const struct mc_env *env;
};

static bool norm_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct norm_rows *job = ctx;
	size_t first = item * ITEM_ROWS, count = mc_least(job->rows - first, ITEM_ROWS);

	(void)worker;
	if (!mc_env_go_on(job->env, err))
		return false;
	mc_rms_norm(job->x + first * job->n, job->n, job->w, job->eps, count, job->n,
	    job->y + first * job->n, job->n);
	return true;
}

bool mc_norm_rows(const float *x, size_t rows, size_t n, const float *w, float eps, float *y,
    const struct mc_env *env, struct mc_error *err)
{
	struct norm_rows job = {
	    .x = x, .w = w, .eps = eps, .y = y, .rows = rows, .n = n, .env = env};

	return mc_pool_run(env->pool, mc_blocks(rows, ITEM_ROWS), norm_item, &job, err);
}

struct add_residual {
	const float *delta;
	float *hidden;
	size_t rows, n, layer, first_token;
	const char *after;
	const struct mc_env *env;
};

static bool fail_not_finite(
    const struct add_residual *job, size_t first, size_t count, struct mc_error *err)
{
	const float *block = job->hidden + first * job->n;
	size_t at = 0;
	char where[32];

	while (at + 1 < count * job->n && isfinite(block[at]))
		at++;
	snprintf(where, sizeof where, "layer %zu", job->layer);
	return mc_fail(err, MC_CORRUPT, where,
	    "a value is not finite after %s: %g for token %zu, channel %zu; the weights or the "
	    "tokens "
	    "drive the model out of the range of float32",
	    job->after, (double)block[at], job->first_token + first + at / job->n, at % job->n);
}

static bool add_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct add_residual *job = ctx;
	size_t first = item * ITEM_ROWS, count = mc_least(job->rows - first, ITEM_ROWS);
	float *hidden = job->hidden + first * job->n;

	(void)worker;
	if (!mc_env_go_on(job->env, err))
		return false;
	mc_add_to(job->delta + first * job->n, hidden, count * job->n);
	if (!mc_all_finite(hidden, count * job->n))
		return fail_not_finite(job, first, count, err);
	return true;
}

bool mc_add_residual(const float *delta, size_t rows, size_t n, float *hidden, size_t layer,
    const char *after, size_t first_token, const struct mc_env *env, struct mc_error *err)
{
	struct add_residual job = {.delta = delta,
	    .hidden = hidden,
	    .rows = rows,
	    .n = n,
	    .layer = layer,
	    .first_token = first_token,
	    .after = after,
	    .env = env};

	return mc_pool_run(env->pool, mc_blocks(rows, ITEM_ROWS), add_item, &job, err);
}
