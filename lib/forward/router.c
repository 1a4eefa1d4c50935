/*
 * router.c - which expert computes which token
 *
 * Logits in float32, then each token's choice, then one ascending list of rows an expert.
 */
#include "block.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "moecal/linalg.h"
#include "moecal/ops.h"

#define ITEM_ROWS 256u

struct choose {
	const float *logits; /* [tokens, E] */
	const struct mc_routing *routing;
	size_t layer, first_token;
	bool renormalise;
	const struct mc_env *env;
};

static bool choose_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct choose *job = ctx;
	const struct mc_routing *r = job->routing;
	size_t first = item * ITEM_ROWS, end = mc_least(first + ITEM_ROWS, r->tokens);

	(void)worker;
	if (!mc_env_go_on(job->env, err))
		return false;
	for (size_t t = first; t < end; t++) {
		const float *logits = job->logits + t * r->experts;
		if (!mc_all_finite(logits, r->experts)) {
			char where[32];
			snprintf(where, sizeof where, "layer %zu", job->layer);
			return mc_fail(err, MC_CORRUPT, where,
			    "a router logit of token %zu is not finite, so no expert can be chosen",
			    job->first_token + t);
		}
		mc_top_k_softmax(logits, r->experts, r->k, job->renormalise, r->index + t * r->k,
		    r->weight + t * r->k);
	}
	return true;
}

static bool new_lists(struct mc_routing *r, const struct mc_env *env, struct mc_error *err)
{
	r->begin = mc_arena_zalloc(env->arena, r->experts + 1, sizeof *r->begin, "routing", err);
	r->row = mc_arena_alloc(env->arena, r->tokens * r->k, sizeof *r->row, "routing", err);
	r->share = mc_arena_alloc(env->arena, r->tokens * r->k, sizeof *r->share, "routing", err);
	return r->begin != NULL && r->row != NULL && r->share != NULL;
}

/* A counting sort by expert; going through the tokens in order keeps each list ascending. */
static bool fill_lists(struct mc_routing *r, const struct mc_env *env, struct mc_error *err)
{
	size_t mark = mc_arena_mark(env->arena), entries = r->tokens * r->k;
	size_t *next = mc_arena_alloc(env->arena, r->experts, sizeof *next, "routing", err);

	if (next == NULL)
		return false;
	for (size_t i = 0; i < entries; i++)
		r->begin[r->index[i] + 1]++;
	for (size_t e = 0; e < r->experts; e++) {
		r->begin[e + 1] += r->begin[e];
		next[e] = r->begin[e];
	}
	for (size_t i = 0; i < entries; i++) {
		size_t at = next[r->index[i]]++;
		r->row[at] = (uint32_t)(i / r->k);
		r->share[at] = r->weight[i];
	}
	mc_arena_rewind(env->arena, mark);
	return true;
}

bool mc_route(const struct mc_layer *layer, const float *x, size_t tokens, size_t first_token,
    struct mc_routing *ret, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_model_config *config = &layer->model->config;
	size_t experts = config->experts, k = config->experts_per_token;

	mc_assert(config->router == MC_ROUTER_SOFTMAX_TOP_K);
	*ret = (struct mc_routing){.tokens = tokens, .experts = experts, .k = k};
	ret->index = mc_arena_alloc(env->arena, tokens * k, sizeof *ret->index, "routing", err);
	ret->weight = mc_arena_alloc(env->arena, tokens * k, sizeof *ret->weight, "routing", err);
	if (ret->index == NULL || ret->weight == NULL || !new_lists(ret, env, err))
		return false;

	size_t mark = mc_arena_mark(env->arena);
	float *logits =
	    mc_arena_alloc(env->arena, tokens * experts, sizeof *logits, "router logits", err);
	struct choose job = {.logits = logits,
	    .routing = ret,
	    .layer = layer->index,
	    .first_token = first_token,
	    .renormalise = config->renormalise,
	    .env = env};
	bool ok = logits != NULL &&
		  mc_linear(x, config->hidden, tokens, &layer->router, logits, experts, env, err) &&
		  mc_pool_run(env->pool, mc_blocks(tokens, ITEM_ROWS), choose_item, &job, err);
	mc_arena_rewind(env->arena, mark);
	return ok && fill_lists(ret, env, err);
}

bool mc_route_dense(
    size_t tokens, struct mc_routing *ret, const struct mc_env *env, struct mc_error *err)
{
	*ret = (struct mc_routing){.tokens = tokens, .experts = 1, .k = 1};
	if (!new_lists(ret, env, err))
		return false;
	ret->begin[1] = tokens;
	for (size_t t = 0; t < tokens; t++) {
		ret->row[t] = (uint32_t)t;
		ret->share[t] = 1.0f;
	}
	return true;
}
