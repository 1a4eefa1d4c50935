/*
 * layer_observer.c - the statistics of one layer: which slice belongs to which site and expert
 */
#include "moecal/observer.h"

#include <stdio.h>

#include "moecal/alloc.h"
#include "moecal/coverage.h"

/* Columns of the module at `index`: the width of its input. */
static size_t width_of(const struct mc_model *model, size_t index)
{
	return index == MC_NO_INDEX ? 0 : model->modules[index]->cols;
}

static bool is_moe(const struct mc_model *model, size_t layer)
{
	return model->layers[layer].moe != MC_NO_INDEX;
}

static struct mc_input_stats *stats_of_experts(size_t experts, size_t channels, size_t sequences,
    const struct mc_env *env, struct mc_error *err)
{
	struct mc_input_stats *stats =
	    mc_arena_zalloc(env->arena, experts, sizeof *stats, "statistics of experts", err);

	for (size_t e = 0; stats != NULL && e < experts; e++)
		if (!mc_input_stats_init(&stats[e], channels, sequences, env, err))
			return NULL;
	return stats;
}

bool mc_layer_observer_init(struct mc_layer_observer *observer, const struct mc_model *model,
    size_t layer, const struct mc_batch *batch, bool see_all_tokens,
    struct mc_coverage_layer *coverage, const struct mc_env *env, struct mc_error *err)
{
	const struct mc_layer_index *index = &model->layers[layer];
	size_t experts = is_moe(model, layer) ? model->config.experts : 0, n = batch->sequences;
	size_t narrow = width_of(model, index->gate), wide = width_of(model, index->down);

	*observer = (struct mc_layer_observer){
	    .batch = batch, .layer = layer, .experts = experts, .coverage = coverage};
	if (!mc_input_stats_init(&observer->qkv, width_of(model, index->q), n, env, err) ||
	    !mc_input_stats_init(&observer->o, width_of(model, index->o), n, env, err) ||
	    !mc_input_stats_init(&observer->gate_up, narrow, n, env, err))
		return false;
	if (experts == 0)
		return mc_input_stats_init(&observer->dense_down, wide, n, env, err);
	if (!see_all_tokens) {
		observer->expert_gate_up = stats_of_experts(experts, narrow, n, env, err);
		if (observer->expert_gate_up == NULL)
			return false;
	}
	observer->expert_down = stats_of_experts(experts, wide, n, env, err);
	return observer->expert_down != NULL;
}

static uint64_t plus(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return mc_add(a, b, &sum) ? sum : UINT64_MAX;
}

/* The array of `experts` structs and what each holds. */
static uint64_t experts_bytes(size_t experts, size_t channels, size_t sequences)
{
	uint64_t each = mc_input_stats_bytes(channels, sequences), structs, all;

	if (!mc_mul(experts, sizeof(struct mc_input_stats), &structs) ||
	    !mc_mul(experts, each, &all))
		return UINT64_MAX;
	return plus(plus(structs, 63) / 64 * 64, all);
}

uint64_t mc_layer_observer_bytes(
    const struct mc_model *model, size_t layer, size_t sequences, bool see_all_tokens)
{
	const struct mc_layer_index *index = &model->layers[layer];
	size_t experts = is_moe(model, layer) ? model->config.experts : 0;
	size_t narrow = width_of(model, index->gate), wide = width_of(model, index->down);
	uint64_t bytes = plus(mc_input_stats_bytes(width_of(model, index->q), sequences),
	    plus(mc_input_stats_bytes(width_of(model, index->o), sequences),
		mc_input_stats_bytes(narrow, sequences)));

	if (experts == 0)
		return plus(bytes, mc_input_stats_bytes(wide, sequences));
	if (!see_all_tokens)
		bytes = plus(bytes, experts_bytes(experts, narrow, sequences));
	return plus(bytes, experts_bytes(experts, wide, sequences));
}

/* --- the tap ---------------------------------------------------------------------------------- */

/* NULL: nobody keeps statistics of this. */
static struct mc_input_stats *stats_for(
    struct mc_layer_observer *observer, enum mc_site site, size_t expert)
{
	struct mc_input_stats *stats = NULL;

	switch (site) {
	case MC_SITE_QKV:
		return &observer->qkv;
	case MC_SITE_O:
		return &observer->o;
	case MC_SITE_GATE_UP:
		return &observer->gate_up;
	case MC_SITE_EXPERT_GATE_UP:
		stats = observer->expert_gate_up;
		break;
	case MC_SITE_DOWN:
		if (observer->experts == 0)
			return &observer->dense_down;
		stats = observer->expert_down;
		break;
	case MC_SITE_QUERY:
	case MC_SITE_KEY:
	case MC_SITE_VALUE:
	case MC_SITE_COUNT:
		break;
	}
	return stats != NULL && expert < observer->experts ? &stats[expert] : NULL;
}

static const char *site_name(enum mc_site site)
{
	switch (site) {
	case MC_SITE_QKV:
		return "q, k and v";
	case MC_SITE_O:
		return "o";
	case MC_SITE_GATE_UP:
	case MC_SITE_EXPERT_GATE_UP:
		return "gate and up";
	case MC_SITE_DOWN:
		return "down";
	case MC_SITE_QUERY:
		return "attention (q)";
	case MC_SITE_KEY:
		return "attention (k)";
	case MC_SITE_VALUE:
		return "attention (v)";
	case MC_SITE_COUNT:
		break;
	}
	return "an unknown site";
}

static bool fail_in_layer(const struct mc_layer_observer *observer,
    const struct mc_tap_slice *slice, enum mc_code code, const char *text, struct mc_error *err)
{
	char where[96];

	if (slice->expert == MC_NO_INDEX)
		snprintf(where, sizeof where, "layer %zu, input of %s", observer->layer,
		    site_name(slice->site));
	else
		snprintf(where, sizeof where, "layer %zu, expert %zu, input of %s", observer->layer,
		    slice->expert, site_name(slice->site));
	return mc_fail(err, code, where, "%s", text);
}

static bool is_attention(enum mc_site site)
{
	return site == MC_SITE_QUERY || site == MC_SITE_KEY || site == MC_SITE_VALUE;
}

/* What enters attention is watched only where somebody asked for it. */
static bool take_heads(
    struct mc_layer_observer *observer, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct mc_head_ranges *heads = slice->site == MC_SITE_QUERY ? observer->query
				       : slice->site == MC_SITE_KEY ? observer->key
								    : observer->value;
	struct mc_error why;

	mc_error_init(&why);
	return heads == NULL || mc_head_ranges_add(heads, slice, observer->batch->start, &why) ||
	       fail_in_layer(observer, slice, why.code, why.text, err);
}

static bool take_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct mc_layer_observer *observer = ctx;
	struct mc_input_stats *stats = stats_for(observer, slice->site, slice->expert);
	struct mc_error why;

	if (is_attention(slice->site))
		return take_heads(observer, slice, err);
	if (stats == NULL)
		return fail_in_layer(observer, slice, MC_INTERNAL,
		    "inputs were offered that this layer's statistics have no place for", err);
	mc_error_init(&why);
	if (!mc_input_stats_add(stats, slice, observer->batch->start, &why))
		return fail_in_layer(observer, slice, why.code, why.text, err);
	/* One slice counts for all: its calls come one after another. */
	if (slice->site == MC_SITE_DOWN && slice->first_channel == 0 &&
	    observer->coverage != NULL && slice->expert < observer->coverage->experts)
		observer->coverage->expert[slice->expert].seen += slice->count;
	return true;
}

static bool take_routing(void *ctx, const struct mc_tap_routing *routing, struct mc_error *err)
{
	struct mc_layer_observer *observer = ctx;

	return observer->coverage == NULL || mc_coverage_add(observer->coverage, routing, err);
}

struct mc_tap mc_layer_observer_tap(struct mc_layer_observer *observer)
{
	return (struct mc_tap){.inputs = take_inputs, .routing = take_routing, .ctx = observer};
}

/* --- finding ---------------------------------------------------------------------------------- */

static const struct mc_input_stats *of_gate_up(
    const struct mc_layer_observer *observer, size_t expert)
{
	if (expert >= observer->experts || observer->expert_gate_up == NULL ||
	    observer->expert_gate_up[expert].tokens == 0)
		return &observer->gate_up;
	return &observer->expert_gate_up[expert];
}

static const struct mc_input_stats *of_down(const struct mc_layer_observer *observer, size_t expert)
{
	if (observer->experts == 0)
		return &observer->dense_down;
	return expert < observer->experts && observer->expert_down[expert].tokens > 0
		   ? &observer->expert_down[expert]
		   : NULL;
}

const struct mc_input_stats *mc_layer_observer_of(
    const struct mc_layer_observer *observer, const struct mc_module *module)
{
	if (module->kind != MC_KIND_LINEAR || module->layer != observer->layer)
		return NULL;
	/* A chain, not a switch: the other roles are no linears of a layer. */
	if (module->role == MC_ROLE_Q || module->role == MC_ROLE_K || module->role == MC_ROLE_V)
		return &observer->qkv;
	if (module->role == MC_ROLE_O)
		return &observer->o;
	if (module->role == MC_ROLE_GATE || module->role == MC_ROLE_UP)
		return of_gate_up(observer, module->expert);
	return module->role == MC_ROLE_DOWN ? of_down(observer, module->expert) : NULL;
}
