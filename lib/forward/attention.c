/*
 * attention.c - grouped-query attention of whole sequences
 *
 * Sequences go in groups of about MC_FORWARD_CHUNK tokens, so that q, k and v stay small however
 * much text there is. Within a group the products are cut by linalg, the rest by (sequence, head).
 */
#include "block.h"

#include <math.h>

#include "moecal/linalg.h"
#include "moecal/ops.h"

struct attention {
	const struct mc_layer *layer;
	const struct mc_model_config *config;
	const struct mc_batch *batch;
	const struct mc_env *env;
	size_t first, end;            /* sequences of the group in work */
	size_t q_width, kv_width;     /* heads * head_dim */
	float *x;                     /* [group, D]: the norm, later the output of o */
	float *q, *k, *v, *heads;     /* [group, q_width or kv_width] */
	float *cos_table, *sin_table; /* [longest sequence, dims / 2] */
	float **scratch;              /* one a worker */
};

static size_t length_of(const struct mc_batch *batch, size_t sequence)
{
	return (size_t)(batch->start[sequence + 1] - batch->start[sequence]);
}

static size_t longest_sequence(const struct mc_batch *batch)
{
	size_t longest = 0;

	for (size_t s = 0; s < batch->sequences; s++)
		if (length_of(batch, s) > longest)
			longest = length_of(batch, s);
	return longest;
}

size_t mc_attention_group(size_t tokens, size_t longest)
{
	return mc_least(tokens, longest > MC_FORWARD_CHUNK ? longest : MC_FORWARD_CHUNK);
}

/* One past the last sequence of the group that begins with `first`: whole ones, at least one. */
static size_t group_end(const struct mc_batch *batch, size_t first)
{
	size_t end = first + 1;

	while (end < batch->sequences &&
	       batch->start[end + 1] - batch->start[first] <= MC_FORWARD_CHUNK)
		end++;
	return end;
}

/* --- one head of one sequence ------------------------------------------------------------- */

/* Norm and rotation of a query or key head; heads of k follow those of q. */
static bool prepare_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct attention *a = ctx;
	const struct mc_model_config *config = a->config;
	size_t heads = config->heads + config->kv_heads, hd = config->head_dim, head = item % heads;
	size_t sequence = a->first + item / heads, tokens = length_of(a->batch, sequence);
	size_t row = (size_t)(a->batch->start[sequence] - a->batch->start[a->first]);
	bool is_q = head < config->heads;
	size_t ld = is_q ? a->q_width : a->kv_width;
	const float *norm = is_q ? a->layer->q_norm : a->layer->k_norm;
	float *x =
	    is_q ? a->q + row * ld + head * hd : a->k + row * ld + (head - config->heads) * hd;

	(void)worker;
	if (!mc_env_go_on(a->env, err))
		return false;
	if (norm != NULL)
		mc_rms_norm(x, ld, norm, config->norm_eps, tokens, hd, x, ld);
	if (config->rotary.dims > 0)
		mc_rotary_half(x, ld, tokens, config->rotary.dims / 2, a->cos_table, a->sin_table);
	return true;
}

static bool head_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct attention *a = ctx;
	const struct mc_model_config *config = a->config;
	size_t hd = config->head_dim, head = item % config->heads;
	size_t kv = head / (config->heads / config->kv_heads) * hd;
	size_t sequence = a->first + item / config->heads;
	size_t row = (size_t)(a->batch->start[sequence] - a->batch->start[a->first]);

	if (!mc_env_go_on(a->env, err))
		return false;
	if (length_of(a->batch, sequence) == 0)
		return true;
	mc_attention_head(a->q + row * a->q_width + head * hd, a->q_width,
	    a->k + row * a->kv_width + kv, a->v + row * a->kv_width + kv, a->kv_width,
	    length_of(a->batch, sequence), hd, 1.0f / sqrtf((float)hd), config->sliding_window,
	    a->heads + row * a->q_width + head * hd, a->q_width, a->scratch[worker]);
	return true;
}

/* --- a group of sequences ----------------------------------------------------------------- */

static bool offer_heads(const struct attention *a, const struct mc_tap *tap, size_t tokens,
    size_t first_token, struct mc_error *err)
{
	const struct mc_env *env = a->env;

	return mc_offer_rows(
		   tap, MC_SITE_QUERY, a->q, a->q_width, tokens, first_token, env, err) &&
	       mc_offer_rows(tap, MC_SITE_KEY, a->k, a->kv_width, tokens, first_token, env, err) &&
	       mc_offer_rows(tap, MC_SITE_VALUE, a->v, a->kv_width, tokens, first_token, env, err);
}

static bool group_forward(
    const struct attention *a, float *hidden, const struct mc_tap *tap, struct mc_error *err)
{
	const struct mc_layer *layer = a->layer;
	const struct mc_model_config *config = a->config;
	const struct mc_env *env = a->env;
	size_t token = (size_t)a->batch->start[a->first], sequences = a->end - a->first;
	size_t tokens = (size_t)a->batch->start[a->end] - token, width = config->hidden;
	float *residual = hidden + token * width;
	void *ctx = (void *)a;

	return mc_norm_rows(residual, tokens, width, layer->attention_norm, config->norm_eps, a->x,
		   env, err) &&
	       mc_offer_rows(tap, MC_SITE_QKV, a->x, width, tokens, token, env, err) &&
	       mc_linear(a->x, width, tokens, &layer->q, a->q, a->q_width, env, err) &&
	       mc_linear(a->x, width, tokens, &layer->k, a->k, a->kv_width, env, err) &&
	       mc_linear(a->x, width, tokens, &layer->v, a->v, a->kv_width, env, err) &&
	       mc_pool_run(env->pool, sequences * (config->heads + config->kv_heads), prepare_item,
		   ctx, err) &&
	       offer_heads(a, tap, tokens, token, err) &&
	       mc_pool_run(env->pool, sequences * config->heads, head_item, ctx, err) &&
	       mc_offer_rows(tap, MC_SITE_O, a->heads, a->q_width, tokens, token, env, err) &&
	       mc_linear(a->heads, a->q_width, tokens, &layer->o, a->x, width, env, err) &&
	       mc_add_residual(
		   a->x, tokens, width, residual, layer->index, "attention", token, env, err);
}

static float *take(const struct attention *a, size_t rows, size_t cols, struct mc_error *err)
{
	uint64_t count = rows;

	mc_assert(cols == 0 || rows <= SIZE_MAX / cols);
	count *= cols;
	return mc_arena_alloc(a->env->arena, count, sizeof(float), "attention scratch", err);
}

static bool make_rotary_table(struct attention *a, size_t longest, struct mc_error *err)
{
	size_t half = a->config->rotary.dims / 2;

	if (half == 0)
		return true;
	a->cos_table = take(a, longest, half, err);
	a->sin_table = take(a, longest, half, err);
	float *inv_freq = take(a, half, 1, err);
	if (a->cos_table == NULL || a->sin_table == NULL || inv_freq == NULL)
		return false;
	mc_rotary_frequencies(&a->config->rotary, inv_freq);
	mc_rotary_table(inv_freq, half, longest, (float)a->config->rotary.attention_factor,
	    a->cos_table, a->sin_table);
	return true;
}

static bool take_scratch(struct attention *a, size_t longest, struct mc_error *err)
{
	size_t group = mc_attention_group(a->batch->tokens, longest);
	unsigned workers = mc_pool_workers(a->env->pool);

	a->x = take(a, group, a->config->hidden, err);
	a->q = take(a, group, a->q_width, err);
	a->k = take(a, group, a->kv_width, err);
	a->v = take(a, group, a->kv_width, err);
	a->heads = take(a, group, a->q_width, err);
	a->scratch =
	    mc_arena_alloc(a->env->arena, workers, sizeof *a->scratch, "attention scratch", err);
	if (a->x == NULL || a->q == NULL || a->k == NULL || a->v == NULL || a->heads == NULL ||
	    a->scratch == NULL)
		return false;
	for (unsigned w = 0; w < workers; w++) {
		a->scratch[w] = take(a, mc_attention_scratch(longest), 1, err);
		if (a->scratch[w] == NULL)
			return false;
	}
	return make_rotary_table(a, longest, err);
}

bool mc_attention_forward(const struct mc_layer *layer, const struct mc_batch *batch, float *hidden,
    const struct mc_tap *tap, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_model_config *config = &layer->model->config;
	size_t mark = mc_arena_mark(env->arena);
	struct attention a = {.layer = layer,
	    .config = config,
	    .batch = batch,
	    .env = env,
	    .q_width = config->heads * config->head_dim,
	    .kv_width = config->kv_heads * config->head_dim};

	bool ok = take_scratch(&a, longest_sequence(batch), err);
	for (; ok && a.first < batch->sequences; a.first = a.end) {
		a.end = group_end(batch, a.first);
		ok = group_forward(&a, hidden, tap, err);
	}
	mc_arena_rewind(env->arena, mark);
	return ok;
}
