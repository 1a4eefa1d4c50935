/*
 * hand_model.c - a model's modules without a checkpoint, for tests that exchange modules
 */
#include "reference/hand_model.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

/* Out of memory ends a test, not a service. */
static void *need(void *memory)
{
	if (memory == NULL)
		abort();
	return memory;
}

static size_t add(struct mc_model *model, struct mc_module module, const char *fmt, ...)
    MC_PRINTF(3, 4);
static size_t add(struct mc_model *model, struct mc_module module, const char *fmt, ...)
{
	size_t at = model->modules_count++;
	va_list arguments;

	model->modules =
	    need(realloc(model->modules, model->modules_count * sizeof *model->modules));
	model->modules[at] = need(malloc(sizeof module));
	va_start(arguments, fmt);
	if (vasprintf(&module.name, fmt, arguments) < 0)
		abort();
	va_end(arguments);
	*model->modules[at] = module;
	return at;
}

static struct mc_module linear(
    enum mc_role role, size_t layer, size_t expert, size_t rows, size_t cols)
{
	return (struct mc_module){.class_name = "Linear",
	    .kind = MC_KIND_LINEAR,
	    .role = role,
	    .layer = layer,
	    .expert = expert,
	    .rows = rows,
	    .cols = cols};
}

static void add_experts(struct mc_model *model, size_t layer)
{
	size_t D = model->config.hidden, F = model->config.expert_intermediate;

	for (size_t e = 0; e < model->config.experts; e++) {
		struct mc_module expert = {
		    .class_name = "Expert", .role = MC_ROLE_EXPERT, .layer = layer, .expert = e};
		add(model, expert, "layers.%zu.mlp.experts.%zu", layer, e);
		size_t gate = add(model, linear(MC_ROLE_GATE, layer, e, F, D),
		    "layers.%zu.mlp.experts.%zu.gate_proj", layer, e);
		add(model, linear(MC_ROLE_UP, layer, e, F, D), "layers.%zu.mlp.experts.%zu.up_proj",
		    layer, e);
		add(model, linear(MC_ROLE_DOWN, layer, e, D, F),
		    "layers.%zu.mlp.experts.%zu.down_proj", layer, e);
		if (e == 0) {
			model->layers[layer].gate = gate;
			model->layers[layer].up = gate + 1;
			model->layers[layer].down = gate + 2;
		}
	}
}

static void add_layer(struct mc_model *model, size_t l, const char *moe_class)
{
	const size_t none = MC_NO_INDEX;
	struct mc_layer_index *index = &model->layers[l];
	struct mc_module layer = {
	    .class_name = "DecoderLayer", .role = MC_ROLE_LAYER, .layer = l, .expert = none};
	struct mc_module moe = {
	    .class_name = moe_class, .role = MC_ROLE_MOE, .layer = l, .expert = none};
	struct mc_module router = {.class_name = "Linear",
	    .kind = MC_KIND_ROUTER,
	    .role = MC_ROLE_ROUTER,
	    .layer = l,
	    .expert = none,
	    .rows = model->config.experts,
	    .cols = model->config.hidden};

	*index = (struct mc_layer_index){none, none, none, none, none, none, none, none, none, none,
	    none, none, none, none, none};
	index->layer = add(model, layer, "layers.%zu", l);
	model->config.is_moe[l] = moe_class != NULL;
	if (moe_class == NULL)
		return;
	index->moe = add(model, moe, "layers.%zu.mlp", l);
	index->router = add(model, router, "layers.%zu.mlp.gate", l);
	add_experts(model, l);
}

void hand_model_init(struct mc_model *model, const struct mc_model_config *config,
    const char *const *moe_classes, size_t layers)
{
	*model = (struct mc_model){.config = *config,
	    .embed = MC_NO_INDEX,
	    .final_norm = MC_NO_INDEX,
	    .head = MC_NO_INDEX,
	    .dtype = MC_F32};
	model->config.layers = layers;
	model->layers = need(calloc(layers, sizeof *model->layers));
	for (size_t l = 0; l < layers; l++)
		add_layer(model, l, moe_classes[l]);
}

void hand_model_release(struct mc_model *model)
{
	for (size_t i = 0; i < model->modules_count; i++) {
		free(model->modules[i]->name);
		free(model->modules[i]->data);
		free(model->modules[i]);
	}
	free(model->modules);
	free(model->layers);
}
