/*
 * hand_layer.c - one decoder layer with random weights
 */
#include "hand_layer.h"

#include <stdlib.h>

float hand_draw(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (float)((double)(*state >> 40) / 8388608.0 - 1.0);
}

static void *memory(struct hand_layer *hand, size_t count, size_t size)
{
	mc_assert(hand->memory_count < sizeof hand->memory / sizeof *hand->memory);
	void *p = calloc(count, size);
	mc_assert(p != NULL);
	hand->memory[hand->memory_count++] = p;
	return p;
}

static float *vector(struct hand_layer *hand, size_t n, float middle, float spread, uint64_t *state)
{
	float *v = memory(hand, n, sizeof *v);

	for (size_t i = 0; i < n; i++)
		v[i] = middle + spread * hand_draw(state);
	return v;
}

static struct mc_weight weight(struct hand_layer *hand, const struct hand_shape *shape, size_t rows,
    size_t cols, float spread, bool bias, uint64_t *state)
{
	float *wide = vector(hand, rows * cols, 0, spread, state);
	void *data = memory(hand, rows * cols, sizeof(float));

	mc_narrow(wide, shape->dtype, data, rows * cols);
	return (struct mc_weight){.dtype = shape->dtype,
	    .rows = rows,
	    .cols = cols,
	    .data = data,
	    .bias = bias ? vector(hand, rows, 0, 0.3f, state) : NULL};
}

static void make_model(struct hand_layer *hand, const struct hand_shape *s)
{
	struct mc_model_config *c = &hand->model.config;

	c->layers = 1;
	c->hidden = s->width;
	c->heads = s->heads;
	c->kv_heads = s->kv_heads;
	c->head_dim = s->head_dim;
	c->experts = s->experts;
	c->experts_per_token = s->active;
	c->expert_intermediate = c->intermediate = s->expert_width;
	c->norm_eps = 1e-5f;
	c->sliding_window = s->window;
	c->renormalise = s->renormalise;
	c->rotary = (struct mc_rotary){.kind = MC_ROTARY_NONE,
	    .theta = 1e4,
	    .dims = s->head_dim / 2 * 2,
	    .attention_factor = 1};
	c->is_moe[0] = s->experts > 0;
	hand->block = (struct mc_module){
	    .kind = MC_KIND_CONTAINER, .role = MC_ROLE_MOE, .expert = MC_NO_INDEX};
	hand->modules[0] = &hand->block;
	hand->model.modules = hand->modules;
	hand->model.modules_count = 1;
	hand->index.moe = s->experts > 0 ? 0 : MC_NO_INDEX;
	hand->model.layers = &hand->index;
}

void hand_layer_init(struct hand_layer *hand, const struct hand_shape *s)
{
	uint64_t state = s->seed;
	size_t D = s->width, q = s->heads * s->head_dim, kv = s->kv_heads * s->head_dim;
	size_t experts = s->experts > 0 ? s->experts : 1;
	struct mc_layer *layer = &hand->layer;

	*hand = (struct hand_layer){0};
	make_model(hand, s);
	layer->model = &hand->model;
	layer->attention_norm = vector(hand, D, 1, 0.5f, &state);
	layer->ffn_norm = vector(hand, D, 1, 0.5f, &state);
	if (s->qk_norm) {
		layer->q_norm = vector(hand, s->head_dim, 1, 0.5f, &state);
		layer->k_norm = vector(hand, s->head_dim, 1, 0.5f, &state);
	}
	layer->q = weight(hand, s, q, D, 0.3f, s->bias, &state);
	layer->k = weight(hand, s, kv, D, 0.3f, s->bias, &state);
	layer->v = weight(hand, s, kv, D, 0.3f, s->bias, &state);
	layer->o = weight(hand, s, D, q, 0.3f, s->bias, &state);
	if (s->experts > 0)
		layer->router = weight(hand, s, experts, D, 1.0f, false, &state);
	layer->gate = memory(hand, experts, sizeof *layer->gate);
	layer->up = memory(hand, experts, sizeof *layer->up);
	layer->down = memory(hand, experts, sizeof *layer->down);
	for (size_t e = 0; e < experts; e++) {
		layer->gate[e] = weight(hand, s, s->expert_width, D, 0.3f, false, &state);
		layer->up[e] = weight(hand, s, s->expert_width, D, 0.3f, false, &state);
		layer->down[e] = weight(hand, s, D, s->expert_width, 0.3f, false, &state);
	}
}

void hand_layer_release(struct hand_layer *hand)
{
	for (size_t i = 0; i < hand->memory_count; i++)
		free(hand->memory[i]);
	hand->memory_count = 0;
}
