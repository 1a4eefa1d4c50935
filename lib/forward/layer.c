/*
 * layer.c - one layer's weights from the checkpoint into the arena
 */
#include "block.h"

/* What reading a weight takes on the way, to check and convert it: a bound. */
#define READING_BYTES ((uint64_t)1 << 20)

struct loader {
	const struct mc_model *model;
	enum mc_dtype precision;
	const struct mc_env *env;
};

static const struct mc_module *module_at(const struct mc_model *model, size_t index)
{
	mc_assert(index < model->modules_count);
	return model->modules[index];
}

static bool load_weight(const struct loader *loader, const struct mc_module *module,
    struct mc_weight *ret, struct mc_error *err)
{
	return mc_model_read_weight(
	    loader->model, module, loader->precision, ret, loader->env, err);
}

/* Gate, up and down: their products are fused with the activation, where no bias is added. */
static bool load_plain(const struct loader *loader, const struct mc_module *module,
    struct mc_weight *ret, struct mc_error *err)
{
	if (module->bias != NULL)
		return mc_fail(err, MC_UNSUPPORTED, module->name,
		    "this linear has a bias; gate, up and down are computed without one");
	return load_weight(loader, module, ret, err);
}

static bool load_vector(
    const struct loader *loader, size_t index, float **ret, struct mc_error *err)
{
	*ret = NULL;
	return index == MC_NO_INDEX ||
	       mc_model_read_vector(loader->model, module_at(loader->model, index),
		   loader->precision, ret, loader->env, err);
}

static bool load_attention(const struct loader *loader, const struct mc_layer_index *index,
    struct mc_layer *layer, struct mc_error *err)
{
	const struct mc_model *model = loader->model;

	return load_vector(loader, index->attention_norm, &layer->attention_norm, err) &&
	       load_vector(loader, index->ffn_norm, &layer->ffn_norm, err) &&
	       load_vector(loader, index->q_norm, &layer->q_norm, err) &&
	       load_vector(loader, index->k_norm, &layer->k_norm, err) &&
	       load_weight(loader, module_at(model, index->q), &layer->q, err) &&
	       load_weight(loader, module_at(model, index->k), &layer->k, err) &&
	       load_weight(loader, module_at(model, index->v), &layer->v, err) &&
	       load_weight(loader, module_at(model, index->o), &layer->o, err);
}

/* The three linears of expert e, or of the dense block. */
static const struct mc_module *ffn_module(
    const struct mc_model *model, size_t layer, size_t e, size_t offset)
{
	const struct mc_layer_index *index = &model->layers[layer];

	if (index->moe != MC_NO_INDEX)
		return mc_model_expert(model, layer, e, offset);
	return module_at(model, offset == 1 ? index->gate : offset == 2 ? index->up : index->down);
}

static size_t experts_of(const struct mc_model *model, size_t layer)
{
	return model->layers[layer].moe != MC_NO_INDEX ? model->config.experts : 1;
}

static bool load_ffn(
    const struct loader *loader, size_t index, struct mc_layer *layer, struct mc_error *err)
{
	const struct mc_model *model = loader->model;
	struct mc_arena *arena = loader->env->arena;
	size_t experts = experts_of(model, index);

	layer->gate = mc_arena_alloc(arena, experts, sizeof *layer->gate, "experts", err);
	layer->up = mc_arena_alloc(arena, experts, sizeof *layer->up, "experts", err);
	layer->down = mc_arena_alloc(arena, experts, sizeof *layer->down, "experts", err);
	if (layer->gate == NULL || layer->up == NULL || layer->down == NULL)
		return false;
	if (model->layers[index].moe != MC_NO_INDEX &&
	    !load_weight(
		loader, module_at(model, model->layers[index].router), &layer->router, err))
		return false;
	for (size_t e = 0; e < experts; e++)
		if (!mc_env_go_on(loader->env, err) ||
		    !load_plain(loader, ffn_module(model, index, e, 1), &layer->gate[e], err) ||
		    !load_plain(loader, ffn_module(model, index, e, 2), &layer->up[e], err) ||
		    !load_plain(loader, ffn_module(model, index, e, 3), &layer->down[e], err))
			return false;
	return true;
}

bool mc_layer_load(struct mc_layer *layer, const struct mc_model *model, size_t index,
    enum mc_dtype precision, const struct mc_env *env, struct mc_error *err)
{
	struct loader loader = {.model = model, .precision = precision, .env = env};

	mc_assert(index < model->config.layers);
	*layer = (struct mc_layer){.model = model, .index = index};
	return load_attention(&loader, &model->layers[index], layer, err) &&
	       load_ffn(&loader, index, layer, err);
}

/* --- bytes -------------------------------------------------------------------------------- */

/* The weight as stored (norms as float32), its bias as float32. */
static uint64_t module_bytes(const struct mc_module *module)
{
	unsigned element = sizeof(float);
	uint64_t bytes = 0;

	if (module->weight != NULL && module->kind != MC_KIND_NORM)
		element = mc_dtype_bits(module->weight->entry->dtype) / 8;
	if (module->weight != NULL)
		bytes = mc_arena_cost(mc_times(module->rows, module->cols), element);
	if (module->bias != NULL)
		bytes = mc_plus(bytes, mc_arena_cost(module->rows, sizeof(float)));
	return bytes;
}

uint64_t mc_layer_bytes(const struct mc_model *model, size_t index)
{
	uint64_t bytes = mc_plus(READING_BYTES,
	    mc_times(3, mc_arena_cost(experts_of(model, index), sizeof(struct mc_weight))));

	uint64_t scratch = 0; /* weights that are not stored as they are used are made one by one */
	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_module *module = model->modules[i];
		if (module->layer != index)
			continue;
		bytes = mc_plus(bytes, module_bytes(module));
		scratch = module->scratch_bytes > scratch ? module->scratch_bytes : scratch;
	}
	return mc_plus(bytes, scratch);
}
