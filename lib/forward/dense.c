/*
 * dense.c - the block of a layer without experts: one expert that every token goes to
 */
#include "block.h"

bool mc_dense_forward(const struct mc_layer *layer, const float *x, float *out, size_t tokens,
    size_t first_token, const struct mc_tap *tap, const struct mc_env *env, struct mc_error *err)
{
	size_t mark = mc_arena_mark(env->arena), width = layer->model->config.hidden;
	struct mc_routing routing;
	struct mc_expert_pass pass = {.gate = layer->gate,
	    .up = layer->up,
	    .down = layer->down,
	    .routing = &routing,
	    .dense = true,
	    .x = x,
	    .out = out,
	    .first_token = first_token,
	    .tap = tap};

	bool ok = mc_route_dense(tokens, &routing, env, err) &&
		  mc_offer_rows(tap, MC_SITE_GATE_UP, x, width, tokens, first_token, env, err) &&
		  mc_expert_pass(&pass, env, err);
	mc_arena_rewind(env->arena, mark);
	return ok;
}
