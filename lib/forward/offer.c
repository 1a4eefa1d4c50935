/*
 * offer.c - a block's inputs shown to the tap, one slice of channels an item
 *
 * An item is a slice, so that slices run side by side while the rows of each come in token order.
 */
#include "block.h"

struct offer {
	const struct mc_tap *tap;
	const struct mc_routing *routing; /* NULL: all rows, for the layer */
	enum mc_site site;
	const float *x;
	size_t channels, slices, tokens, first_token;
	const struct mc_env *env;
};

static bool offer_item(void *ctx, size_t item, unsigned worker, struct mc_error *err)
{
	const struct offer *job = ctx;
	const struct mc_routing *routing = job->routing;
	size_t expert = item / job->slices, first = item % job->slices * MC_TAP_CHANNELS;
	struct mc_tap_slice slice = {.site = job->site,
	    .expert = MC_NO_INDEX,
	    .first_channel = first,
	    .channels = mc_least(job->channels - first, MC_TAP_CHANNELS),
	    .x = job->x + first,
	    .ldx = job->channels,
	    .count = job->tokens,
	    .first_token = job->first_token,
	    .worker = worker};

	if (!mc_env_go_on(job->env, err))
		return false;
	if (routing != NULL) {
		slice.expert = expert;
		slice.rows = routing->row + routing->begin[expert];
		slice.count = routing->begin[expert + 1] - routing->begin[expert];
	}
	return slice.count == 0 || job->tap->inputs(job->tap->ctx, &slice, err);
}

static bool offer(struct offer *job, size_t experts, struct mc_error *err)
{
	if (job->tap == NULL)
		return true;
	job->slices = mc_blocks(job->channels, MC_TAP_CHANNELS);
	return mc_pool_run(job->env->pool, experts * job->slices, offer_item, job, err);
}

bool mc_offer_rows(const struct mc_tap *tap, enum mc_site site, const float *x, size_t channels,
    size_t tokens, size_t first_token, const struct mc_env *env, struct mc_error *err)
{
	struct offer job = {.tap = tap,
	    .site = site,
	    .x = x,
	    .channels = channels,
	    .tokens = tokens,
	    .first_token = first_token,
	    .env = env};

	return offer(&job, 1, err);
}

bool mc_offer_routed(const struct mc_tap *tap, const struct mc_routing *routing, const float *x,
    size_t channels, size_t first_token, const struct mc_env *env, struct mc_error *err)
{
	struct offer job = {.tap = tap,
	    .routing = routing,
	    .site = MC_SITE_EXPERT_GATE_UP,
	    .x = x,
	    .channels = channels,
	    .tokens = routing->tokens,
	    .first_token = first_token,
	    .env = env};

	return offer(&job, routing->experts, err);
}
