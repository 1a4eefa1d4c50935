/*
 * model.c - open a checkpoint as a model; find and replace modules
 */
#include "moecal/model.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model_build.h"

#include "moecal/alloc.h"

#define MAX_CONFIG ((size_t)16 << 20)
/* Of all layers together; the largest releases have some 25 000. Fused tensors of a few bytes could
 * ask for any number of them, and the records of their modules stand outside the memory budget. */
#define MAX_EXPERTS ((size_t)1 << 17)

const char *mc_role_name(enum mc_role role)
{
	static const char *const names[] = {[MC_ROLE_NONE] = "none",
	    [MC_ROLE_EMBED] = "embedding",
	    [MC_ROLE_HEAD] = "head",
	    [MC_ROLE_FINAL_NORM] = "final_norm",
	    [MC_ROLE_ATTENTION_NORM] = "attention_norm",
	    [MC_ROLE_FFN_NORM] = "ffn_norm",
	    [MC_ROLE_Q_NORM] = "q_norm",
	    [MC_ROLE_K_NORM] = "k_norm",
	    [MC_ROLE_Q] = "q",
	    [MC_ROLE_K] = "k",
	    [MC_ROLE_V] = "v",
	    [MC_ROLE_O] = "o",
	    [MC_ROLE_ROUTER] = "router",
	    [MC_ROLE_GATE] = "gate",
	    [MC_ROLE_UP] = "up",
	    [MC_ROLE_DOWN] = "down",
	    [MC_ROLE_ATTENTION] = "attention",
	    [MC_ROLE_MOE] = "moe",
	    [MC_ROLE_LAYER] = "layer",
	    [MC_ROLE_EXPERT] = "expert"};
	mc_assert((size_t)role < sizeof names / sizeof *names);
	return names[role];
}

static bool read_config(struct mc_model *model, struct mc_error *err)
{
	struct mc_buf text;

	mc_buf_init(&text, MAX_CONFIG);
	if (mc_checkpoint_read_file(&model->checkpoint, "config.json", &text, err))
		model->config_json =
		    mc_json_parse(mc_buf_text(&text), text.length, "config.json", err);
	mc_buf_release(&text);
	if (model->config_json != NULL && mc_json_type(model->config_json) != MC_JSON_OBJECT)
		return mc_fail(err, MC_INVALID, "config.json", "must be an object, not %s",
		    mc_json_type_name(mc_json_type(model->config_json)));
	return model->config_json != NULL;
}

const struct mc_json *mc_model_quantization(const struct mc_json *config_json)
{
	const struct mc_json *quantization = mc_json_get(config_json, "quantization_config");

	if (mc_json_is_null(quantization))
		quantization =
		    mc_json_get(mc_json_get(config_json, "text_config"), "quantization_config");
	if (mc_json_is_null(quantization))
		quantization = mc_json_get(config_json, "compression_config");
	return mc_json_is_null(quantization) ? NULL : quantization;
}

static bool require_unquantized(const struct mc_json *config, struct mc_error *err)
{
	const struct mc_json *quantization = mc_model_quantization(config);

	if (quantization == NULL)
		return true;
	const struct mc_json *method = mc_json_get(quantization, "quant_method");
	return mc_fail(err, MC_UNSUPPORTED, "config.json",
	    "the checkpoint is already quantized (quant_method %.40s); the original is needed",
	    method != NULL && mc_json_type(method) == MC_JSON_STRING ? mc_json_string(method, NULL)
								     : "not named");
}

static bool parse_config(struct mc_model *model, struct mc_error *err)
{
	struct mc_model_config *c = &model->config;

	if (model->source == NULL && !require_unquantized(model->config_json, err))
		return false;
	model->arch = mc_architecture_find(model->config_json, err);
	if (model->arch == NULL || !model->arch->parse_config(model->config_json, c, err))
		return false;
	snprintf(c->model_type, sizeof c->model_type, "%s", model->arch->model_type);
	if (c->experts > 0 && c->experts_per_token > c->experts)
		return mc_fail(err, MC_INVALID, "config.json",
		    "%zu experts a token are more than the %zu experts", c->experts_per_token,
		    c->experts);
	if (c->experts * c->layers > MAX_EXPERTS)
		return mc_fail(err, MC_UNSUPPORTED, "config.json",
		    "%zu layers of %zu experts are more than the %zu experts that a model may have",
		    c->layers, c->experts, MAX_EXPERTS);
	return true;
}

/* --- finding modules -------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b, void *ctx)
{
	const struct mc_model *model = ctx;

	return strcmp(
	    model->modules[*(const size_t *)a]->name, model->modules[*(const size_t *)b]->name);
}

static bool make_index(struct mc_model *model, struct mc_error *err)
{
	model->by_name =
	    mc_alloc(model->modules_count, sizeof *model->by_name, "names of modules", err);
	if (model->by_name == NULL)
		return false;
	for (size_t i = 0; i < model->modules_count; i++)
		model->by_name[i] = i;
	qsort_r(model->by_name, model->modules_count, sizeof *model->by_name, compare_names, model);
	return true;
}

/* A model that was put together by hand has no index. */
static size_t position(const struct mc_model *model, const char *name)
{
	size_t low = 0, high = model->modules_count;

	for (size_t i = 0; model->by_name == NULL && i < model->modules_count; i++)
		if (strcmp(model->modules[i]->name, name) == 0)
			return i;
	while (model->by_name != NULL && low < high) {
		size_t middle = low + (high - low) / 2;
		int order = strcmp(name, model->modules[model->by_name[middle]]->name);
		if (order == 0)
			return model->by_name[middle];
		if (order < 0)
			high = middle;
		else
			low = middle + 1;
	}
	return MC_NO_INDEX;
}

/* --- life ------------------------------------------------------------------------------------- */

bool mc_model_open(
    struct mc_model *model, const struct mc_roots *roots, const char *folder, struct mc_error *err)
{
	return mc_model_open_with(model, roots, folder, NULL, err);
}

bool mc_model_open_with(struct mc_model *model, const struct mc_roots *roots, const char *folder,
    const struct mc_weight_source *source, struct mc_error *err)
{
	*model = (struct mc_model){.source = source};
	if (!mc_checkpoint_open(&model->checkpoint, roots, folder, err))
		return false;
	bool ok = read_config(model, err) && parse_config(model, err) &&
		  mc_model_build(model, err) && make_index(model, err);
	if (ok) {
		model->dtype = model->modules[model->layers[0].q]->weight->entry->dtype;
		return true;
	}
	mc_model_close(model);
	return false;
}

bool mc_model_outline(
    struct mc_model *model, const struct mc_roots *roots, const char *folder, struct mc_error *err)
{
	/* a source that is never asked: config.json may say that the checkpoint is quantized */
	static const struct mc_weight_source nobody = {.open = NULL};

	*model = (struct mc_model){.source = &nobody};
	if (!mc_checkpoint_open(&model->checkpoint, roots, folder, err))
		return false;
	bool ok = read_config(model, err) && parse_config(model, err) &&
		  mc_model_build_outline(model, err) && make_index(model, err);
	model->source = NULL;
	if (!ok)
		mc_model_close(model);
	return ok;
}

void mc_model_close(struct mc_model *model)
{
	for (size_t i = 0; i < model->modules_count; i++)
		mc_module_free(model->modules[i]);
	if (model->source != NULL)
		model->source->close(model->source_state);
	free(model->modules);
	free(model->by_name);
	free(model->layers);
	mc_json_free(model->config_json);
	if (model->checkpoint.path != NULL) /* a zeroed model has no checkpoint to close */
		mc_checkpoint_close(&model->checkpoint);
	*model = (struct mc_model){0};
}

struct mc_module *mc_model_find(const struct mc_model *model, const char *name)
{
	size_t i = position(model, name);
	return i == MC_NO_INDEX ? NULL : model->modules[i];
}

struct mc_module *mc_model_set_module(
    struct mc_model *model, const char *name, struct mc_module *module)
{
	size_t i = position(model, name);

	if (i == MC_NO_INDEX)
		return NULL;
	mc_assert(strcmp(module->name, name) == 0); /* the index stays true */
	struct mc_module *old = model->modules[i];
	model->modules[i] = module;
	return old;
}

struct mc_module *mc_model_expert(
    const struct mc_model *model, size_t layer, size_t expert, size_t offset)
{
	mc_assert(model->layers[layer].moe != MC_NO_INDEX && expert < model->config.experts &&
		  offset < 4);
	return model->modules[model->layers[layer].gate - 1 + 4 * expert + offset];
}

const char *mc_model_format(const struct mc_model *model)
{
	return model->source_state == NULL ? "dense" : model->source->format(model->source_state);
}

enum mc_stored mc_model_stored(const struct mc_model *model, size_t tensor)
{
	return model->source_state == NULL ? MC_STORED_PLAIN
					   : model->source->stored(model->source_state, tensor);
}

uint64_t mc_model_parameters(const struct mc_model *model)
{
	uint64_t count = 0;

	for (size_t i = 0; i < model->checkpoint.count; i++) {
		const struct mc_st_entry *entry = model->checkpoint.tensors[i].entry;
		if (mc_model_stored(model, i) == MC_STORED_PLAIN)
			count += entry->bytes * 8 / mc_dtype_bits(entry->dtype);
	}
	for (size_t i = 0; i < model->modules_count; i++)
		if (mc_module_is_made(model->modules[i]))
			count += (uint64_t)model->modules[i]->rows * model->modules[i]->cols;
	return count;
}

bool mc_module_is_made(const struct mc_module *module)
{
	return module->weight != NULL && module->weight->shard == MC_NO_SHARD;
}

bool mc_module_is_slice(const struct mc_module *module)
{
	return module->kind == MC_KIND_LINEAR && module->weight != NULL && module->weight->entry->rank == 3;
}
