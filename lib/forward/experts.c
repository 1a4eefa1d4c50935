/*
 * experts.c - the mixture-of-experts block: router, experts, weighted sum
 */
#include "block.h"

static bool chunk_forward(const struct mc_moe_call *call, size_t first, size_t tokens,
    bool see_all_tokens, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_layer *layer = call->layer;
	const struct mc_tap *tap = call->tap;
	size_t width = layer->model->config.hidden, token = call->first_token + first;
	const float *x = call->x + first * width;
	struct mc_routing routing;

	if (!mc_route(layer, x, tokens, token, &routing, env, err))
		return false;
	if (tap != NULL && tap->routing != NULL) {
		struct mc_tap_routing choice = {.first_token = token,
		    .tokens = tokens,
		    .k = routing.k,
		    .experts = routing.experts,
		    .index = routing.index,
		    .weight = routing.weight};
		if (!tap->routing(tap->ctx, &choice, err))
			return false;
	}
	if (!mc_offer_rows(tap, MC_SITE_GATE_UP, x, width, tokens, token, env, err))
		return false;
	if (!see_all_tokens && !mc_offer_routed(tap, &routing, x, width, token, env, err))
		return false;

	struct mc_expert_pass pass = {.gate = layer->gate,
	    .up = layer->up,
	    .down = layer->down,
	    .routing = &routing,
	    .see_all_tokens = see_all_tokens && tap != NULL,
	    .x = x,
	    .out = call->out + first * width,
	    .first_token = token,
	    .tap = tap};
	return mc_expert_pass(&pass, env, err);
}

bool mc_moe_forward(const struct mc_moe_call *call, bool see_all_tokens, const struct mc_env *env,
    struct mc_error *err)
{
	bool ok = true;

	for (size_t first = 0; ok && first < call->tokens; first += MC_FORWARD_CHUNK) {
		size_t mark = mc_arena_mark(env->arena);
		ok = chunk_forward(call, first, mc_least(call->tokens - first, MC_FORWARD_CHUNK),
		    see_all_tokens, env, err);
		mc_arena_rewind(env->arena, mark);
	}
	return ok;
}
