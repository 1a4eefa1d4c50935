/*
 * verify.c - check a quantized checkpoint that somebody wrote, by its own config.json
 *
 * Modules are what the tensor names say: everything before the last dot. A module is a linear when
 * it has a two-dimensional weight, codes or a weight scale. Which of them must be quantized is what
 * quantization_config says by its targets and its ignore list.
 */
#include <stdlib.h>
#include <string.h>

#include "check_module.h"
#include "verify_attention.h"

#include "moecal/alloc.h"
#include "moecal/dequantize.h"
#include "moecal/file.h"
#include "moecal/match.h"
#include "moecal/model.h"

struct found {
	char *name; /* owned */
	bool linear, embedding;
	bool has_scale;    /* some parameter of a quantized module is there */
	size_t rows, cols; /* 0: not known */
	enum mc_dtype dt;
};

struct inventory {
	size_t count, capacity;
	struct found *modules; /* owned, in tensor name order */
};

static void release_inventory(struct inventory *list)
{
	for (size_t i = 0; i < list->count; i++)
		free(list->modules[i].name);
	free(list->modules);
}

static bool read_shape_tensor(const struct mc_checkpoint *checkpoint,
    const struct mc_ckpt_tensor *tensor, struct found *m, struct mc_error *err)
{
	int64_t shape[2];

	if (tensor->entry->dtype != MC_I64 || tensor->entry->bytes != sizeof shape)
		return true; /* its own check says so */
	if (!mc_checkpoint_read(checkpoint, tensor, 0, sizeof shape, shape, err))
		return false;
	if (shape[0] > 0 && shape[1] > 0 && shape[0] < INT32_MAX && shape[1] < INT32_MAX) {
		m->rows = (size_t)shape[0];
		m->cols = (size_t)shape[1];
	}
	return true;
}

static bool note_tensor(const struct mc_checkpoint *checkpoint, const struct mc_ckpt_tensor *tensor,
    const char *suffix, struct found *m, struct mc_error *err)
{
	const struct mc_st_entry *entry = tensor->entry;

	if (strcmp(suffix, "weight") == 0 && entry->rank == 2) {
		m->linear = true;
		m->rows = entry->shape[0];
		m->cols = entry->shape[1];
		if (mc_dtype_is_weight(entry->dtype))
			m->dt = entry->dtype;
	} else if (strcmp(suffix, "weight_packed") == 0) {
		m->linear = true;
		if (entry->dtype == MC_U8 && entry->rank == 2) { /* two values a byte */
			m->rows = entry->shape[0];
			m->cols = 2 * entry->shape[1];
		}
	} else if (strcmp(suffix, "weight_scale") == 0) {
		/* scales of a byte say nothing of the weight; readers restore BF16 then */
		bool byte = entry->dtype == MC_F8_E4M3 || entry->dtype == MC_U8;
		m->linear = m->has_scale = true;
		if (!byte)
			m->dt = entry->dtype;
		else if (m->dt == MC_DTYPE_COUNT)
			m->dt = MC_BF16;
	} else if (strcmp(suffix, "input_scale") == 0 && mc_dtype_is_weight(entry->dtype)) {
		m->dt = entry->dtype;
	} else if (strcmp(suffix, "weight_shape") == 0) {
		return read_shape_tensor(checkpoint, tensor, m, err);
	}
	return true;
}

static bool take_inventory(
    struct inventory *list, const struct mc_checkpoint *checkpoint, struct mc_error *err)
{
	for (size_t i = 0; i < checkpoint->count; i++) {
		const char *name = checkpoint->tensors[i].entry->name, *dot = strrchr(name, '.');
		size_t length = dot == NULL ? strlen(name) : (size_t)(dot - name);
		struct found *last = list->count > 0 ? &list->modules[list->count - 1] : NULL;
		if (dot == NULL)
			continue;
		if (last == NULL || strlen(last->name) != length ||
		    strncmp(last->name, name, length) != 0) {
			if (!mc_grow((void **)&list->modules, &list->capacity, list->count + 1,
				sizeof *list->modules, "modules", err))
				return false;
			last = &list->modules[list->count];
			*last = (struct found){.name = mc_format(err, "%.*s", (int)length, name),
			    .dt = MC_DTYPE_COUNT};
			if (last->name == NULL)
				return false;
			list->count++;
			last->embedding = strstr(last->name, "embed") != NULL;
		}
		if (!note_tensor(checkpoint, &checkpoint->tensors[i], dot + 1, last, err))
			return false;
	}
	return true;
}

static bool assign(const struct inventory *list, const struct mc_quant_config *config,
    size_t *scheme, struct mc_error *err)
{
	struct mc_match_module *modules = mc_alloc(
	    list->count + 1, sizeof *modules, "modules", err);
	if (modules == NULL)
		return false;
	for (size_t i = 0; i < list->count; i++) {
		const struct found *m = &list->modules[i];
		modules[i] = (struct mc_match_module){.name = m->name,
		    .class_name = m->embedding ? "Embedding" : "Linear",
		    .quantizable = m->linear};
	}
	bool ok = mc_match_schemes(config, modules, list->count, scheme, NULL, NULL, err);
	free(modules);
	return ok;
}

struct verification {
	struct mc_verdict *verdict;
	const struct mc_checkpoint *checkpoint;
	const struct mc_model *original; /* or NULL */
	const struct mc_env *env;
};

static bool check_found(const struct verification *v, const struct found *m,
    const struct mc_scheme *scheme, struct mc_error *err)
{
	size_t mark = mc_arena_mark(v->env->arena);
	struct mc_tensor_source source = {.checkpoint = v->checkpoint};
	struct mc_module_check check = {
	    .name = m->name, .scheme = scheme, .dt = m->dt, .rows = m->rows, .cols = m->cols};
	const struct mc_module *original = v->original == NULL
					       ? NULL
					       : mc_model_find(v->original, m->name);
	struct mc_weight weight;

	if (m->rows == 0 || m->cols == 0) {
		mc_verdict_fail(v->verdict, MC_CHECK_PRESENT,
		    "%s: neither a weight nor weight_shape says how large it is", m->name);
		return true;
	}
	if (!m->has_scale || !mc_dtype_is_weight(m->dt)) {
		mc_verdict_fail(v->verdict, MC_CHECK_PRESENT,
		    "%s.weight_scale is missing or has a dtype that no scale has", m->name);
		return true;
	}
	if (original != NULL && original->rows == m->rows && original->cols == m->cols) {
		if (!mc_model_read_weight(v->original, original, m->dt, &weight, v->env, err))
			return false;
		check.original = &weight;
	} else if (v->original != NULL) {
		mc_verdict_fail(v->verdict, MC_CHECK_EXPECTED,
		    "%s is not in the original, or has another shape there", m->name);
	}
	bool ok = mc_env_go_on(v->env, err) &&
		  mc_check_module(v->verdict, &check, &source, v->env->arena, err);
	mc_arena_rewind(v->env->arena, mark);
	return ok;
}

/* Parameters of modules that the config does not quantize are left over from something else. */
static bool check_found_all(const struct verification *v, const struct inventory *list,
    const struct mc_quant_config *config, const size_t *scheme, struct mc_error *err)
{
	for (size_t i = 0; i < list->count; i++) {
		const struct found *m = &list->modules[i];
		if (scheme[i] == MC_NO_SCHEME || !config->schemes[scheme[i]].has_weights) {
			if (m->has_scale)
				mc_verdict_fail(v->verdict, MC_CHECK_EXPECTED,
				    "%s has a weight_scale, but the config does not quantize it",
				    m->name);
			continue;
		}
		struct mc_tensor_source source = {.checkpoint = v->checkpoint};
		mc_verdict_pass(v->verdict, MC_CHECK_EXPECTED, 1);
		if (!check_found(v, m, &config->schemes[scheme[i]], err) ||
		    !mc_check_fused(v->verdict, m->name, &source, err))
			return false;
	}
	/* linears of the original that have no tensor at all */
	for (size_t i = 0; v->original != NULL && i < v->original->modules_count; i++) {
		const struct mc_module *m = v->original->modules[i];
		bool there = m->weight == NULL;
		for (size_t j = 0; !there && j < list->count; j++)
			there = strcmp(list->modules[j].name, m->name) == 0;
		if (!there)
			mc_verdict_fail(
			    v->verdict, MC_CHECK_PRESENT, "%s has no tensor at all", m->name);
	}
	return true;
}

static bool read_config(
    struct mc_quant_config *config, const struct mc_checkpoint *checkpoint, struct mc_error *err)
{
	struct mc_buf text;
	struct mc_json *json = NULL;

	mc_buf_init(&text, (size_t)64 << 20);
	bool ok = mc_checkpoint_read_file(checkpoint, "config.json", &text, err);
	if (ok) {
		json = mc_json_parse(mc_buf_text(&text), text.length, "config.json", err);
		ok = json != NULL;
	}
	const struct mc_json *quantization = ok ? mc_quant_config_find(json) : NULL;
	if (ok && quantization == NULL)
		ok = mc_fail(err, MC_INVALID, "config.json",
		    "has no quantization_config: this checkpoint is not quantized");
	ok = ok && mc_quant_config_read(config, quantization, err);
	for (size_t i = 0; ok && i < config->count; i++)
		ok = !config->schemes[i].has_weights ||
		     mc_scheme_require_supported(&config->schemes[i], err);
	mc_json_free(json);
	mc_buf_release(&text);
	return ok;
}

bool mc_verify_checkpoint(struct mc_verdict *verdict, const char *folder, const char *original,
    const struct mc_env *env, struct mc_error *err)
{
	struct mc_checkpoint checkpoint;
	struct mc_quant_config config;
	struct mc_model model;
	struct inventory list = {0};
	struct verification v = {.verdict = verdict, .checkpoint = &checkpoint, .env = env};

	if (!mc_checkpoint_open(&checkpoint, env->roots, folder, err))
		return false;
	mc_quant_config_init(&config);
	bool ok = read_config(&config, &checkpoint, err) && take_inventory(&list, &checkpoint, err);
	if (ok && original != NULL) {
		ok = mc_dequantize_open(&model, env->roots, original, err);
		v.original = ok ? &model : NULL;
	}
	size_t *scheme = ok ? mc_alloc(list.count + 1, sizeof *scheme, "schemes", err) : NULL;
	ok = scheme != NULL && assign(&list, &config, scheme, err) &&
	     check_found_all(&v, &list, &config, scheme, err) &&
	     mc_verify_attention(verdict, &checkpoint, &config, env, err);
	if (v.original != NULL)
		mc_model_close(&model);
	free(scheme);
	release_inventory(&list);
	mc_quant_config_release(&config);
	mc_checkpoint_close(&checkpoint);
	return ok;
}
