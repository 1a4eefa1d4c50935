/*
 * hand_layer.h - one decoder layer with random weights, without a checkpoint
 */
#ifndef MC_REFERENCE_HAND_LAYER_H
#define MC_REFERENCE_HAND_LAYER_H

#include "moecal/forward.h"

struct hand_shape {
	size_t width, heads, kv_heads, head_dim;
	size_t expert_width, experts, active; /* experts 0: a dense layer of expert_width */
	size_t window;
	bool qk_norm, bias, renormalise;
	enum mc_dtype dtype;
	uint64_t seed;
};

/* Everything owned; `layer` points into the struct, so it must not be moved. */
struct hand_layer {
	struct mc_model model;
	struct mc_layer_index index;
	struct mc_module block;
	struct mc_module *modules[1];
	struct mc_layer layer;
	void *memory[512];
	size_t memory_count;
};
void hand_layer_init(struct hand_layer *hand, const struct hand_shape *shape);
void hand_layer_release(struct hand_layer *hand);

/* Uniform in -1..1; the state walks on. */
float hand_draw(uint64_t *state);

#endif
