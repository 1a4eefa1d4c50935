/*
 * quantize_attention.c - from ranges of heads to the scales and zero points of q, k and v
 */
#include "quantize_attention.h"

#include <math.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/qparams.h"

enum { QUERY, KEY, VALUE, KINDS };

static const char *const scale_names[KINDS] = {"q_scale", "k_scale", "v_scale"};
static const char *const zero_names[KINDS] = {"q_zero_point", "k_zero_point", "v_zero_point"};

/* --- what tensors there are ------------------------------------------------------------------- */

static void add_tensor(struct mc_packed *list, const char *suffix, enum mc_dtype dtype,
    const struct mc_attention_parts *parts, size_t heads)
{
	bool per_head = parts->args->strategy == MC_STRATEGY_ATTN_HEAD;

	list->items[list->count++] = (struct mc_packed_tensor){.suffix = suffix,
	    .tensor = {
		.dtype = dtype, .rank = per_head ? 3 : 1, .shape = {per_head ? heads : 1, 1, 1}}};
}

void mc_attention_layout(const struct mc_attention_parts *parts, struct mc_packed *ret)
{
	const struct mc_quant_args *args = parts->args;
	enum mc_dtype zero = args->type == MC_QUANT_FLOAT ? MC_F8_E4M3 : MC_I8;

	*ret = (struct mc_packed){0};
	if (args->dynamic != MC_DYNAMIC_NO)
		return;
	for (size_t kind = parts->query ? QUERY : KEY; kind < KINDS; kind++) {
		size_t heads = kind == QUERY ? parts->heads : parts->kv_heads;
		add_tensor(ret, scale_names[kind], parts->dt, parts, heads);
		if (parts->query || !args->symmetric)
			add_tensor(ret, zero_names[kind], zero, parts, heads);
	}
}

/* False: this layer's attention is not quantized. */
static bool parts_of(const struct mc_job *job, size_t layer, struct mc_attention_parts *ret)
{
	const struct mc_model *model = &job->model;

	*ret = (struct mc_attention_parts){.heads = model->config.heads,
	    .kv_heads = model->config.kv_heads,
	    .dt = mc_job_weight_dtype(job, model->modules[model->layers[layer].q])};
	ret->args = mc_job_attention(job, layer, &ret->query);
	return ret->args != NULL;
}

void mc_job_attention_layout(const struct mc_job *job, size_t layer, struct mc_packed *ret)
{
	struct mc_attention_parts parts;

	*ret = (struct mc_packed){0};
	if (parts_of(job, layer, &parts))
		mc_attention_layout(&parts, ret);
}

/* --- watching --------------------------------------------------------------------------------- */

static bool watch(struct mc_head_ranges **ret, size_t heads, const struct mc_job *job,
    const struct mc_layer_observer *observer, const struct mc_env *env, struct mc_error *err)
{
	*ret = mc_arena_alloc(env->arena, 1, sizeof **ret, "head ranges", err);
	return *ret != NULL && mc_head_ranges_init(*ret, heads, job->model.config.head_dim,
				   observer->batch->sequences, env, err);
}

bool mc_observe_attention(const struct mc_job *job, struct mc_layer_observer *observer,
    const struct mc_env *env, struct mc_error *err)
{
	const struct mc_model_config *config = &job->model.config;

	return watch(&observer->query, config->heads, job, observer, env, err) &&
	       watch(&observer->key, config->kv_heads, job, observer, env, err) &&
	       watch(&observer->value, config->kv_heads, job, observer, env, err);
}

uint64_t mc_observe_attention_bytes(const struct mc_job *job)
{
	const struct mc_model_config *config = &job->model.config;
	size_t sequences = job->dataset.sequences;
	uint64_t structs = (sizeof(struct mc_head_ranges) + 63) / 64 * 64;

	return 3 * structs +
	       2 * mc_head_ranges_bytes(config->kv_heads, config->head_dim, sequences) +
	       mc_head_ranges_bytes(config->heads, config->head_dim, sequences);
}

/* --- parameters ------------------------------------------------------------------------------- */

static struct mc_observer observer_of(const struct mc_quant_args *args, enum mc_dtype dt)
{
	const struct mc_json *constant = mc_json_get(args->observer_kwargs, "averaging_constant");
	struct mc_observer observer = {.kind = MC_OBSERVER_MOVING,
	    .averaging_constant = constant == NULL ? 0.01 : mc_json_number(constant),
	    .dtype = dt};

	if (args->observer[0] != '\0' && !mc_observer_find(args->observer, &observer.kind))
		mc_assert(!"an observer that the scheme's check let through");
	return observer;
}

/* E4M3 zero points are no integers: q_min - min / s, every operation rounded to dt, the result to
 * E4M3. Of a range whose scale underflows the reference makes q_max, of an empty one NaN: 0 here.
 */
static float e4m3_zero_point(
    const struct mc_quant_args *args, enum mc_dtype dt, const struct mc_range *range)
{
	struct mc_code_range codes = mc_code_range(args);
	float min = fminf(range->min, 0), max = fmaxf(range->max, 0);
	float scale = mc_round_to(dt, mc_round_to(dt, max - min) / (codes.max - codes.min));

	if (scale == 0)
		return min < 0 ? codes.max : 0;
	float zero = mc_round_to(dt, codes.min - mc_round_to(dt, min / scale));
	return fminf(fmaxf(zero, codes.min), codes.max);
}

static void set_parameters(const struct mc_attention_parts *parts, const struct mc_range *range,
    size_t at, struct mc_tensor *scale, struct mc_tensor *zero)
{
	struct mc_qparam q = mc_qparam_make(parts->args, parts->dt, range->min, range->max);
	size_t element = mc_dtype_bits(scale->dtype) / 8;

	mc_narrow(&q.scale, scale->dtype, (char *)scale->data + at * element, 1);
	if (zero == NULL || parts->args->symmetric)
		return; /* zeros already */
	if (zero->dtype == MC_I8) {
		((int8_t *)zero->data)[at] = (int8_t)q.zero_point;
		return;
	}
	float z = e4m3_zero_point(parts->args, parts->dt, range);
	mc_narrow(&z, zero->dtype, (char *)zero->data + at, 1);
}

/* Scales, and zero points where there are some, of one of q, k and v. */
static bool quantize_kind(const struct mc_attention_parts *parts, struct mc_head_ranges *ranges,
    struct mc_tensor *scale, struct mc_tensor *zero, const char *name, struct mc_error *err)
{
	struct mc_observer observer = observer_of(parts->args, parts->dt);
	bool per_head = parts->args->strategy == MC_STRATEGY_ATTN_HEAD;

	for (size_t i = 0; i < mc_tensor_elements(scale); i++) {
		struct mc_range range = mc_head_ranges_range(
		    ranges, per_head ? i : MC_NO_INDEX, &observer);
		if (!range.seen)
			return mc_fail(err, MC_INVALID, name,
			    "no calibration token reached this attention module");
		set_parameters(parts, &range, i, scale, zero);
	}
	return true;
}

static struct mc_tensor *find(struct mc_packed *list, const char *suffix)
{
	for (size_t i = 0; i < list->count; i++)
		if (strcmp(list->items[i].suffix, suffix) == 0)
			return &list->items[i].tensor;
	return NULL;
}

bool mc_quantize_attention(const struct mc_job *job, size_t layer,
    const struct mc_layer_observer *observer, const struct mc_env *env, struct mc_packed *ret,
    struct mc_error *err)
{
	const char *name = job->model.modules[job->model.layers[layer].attention]->name;
	struct mc_attention_parts parts;

	mc_job_attention_layout(job, layer, ret);
	if (ret->count == 0)
		return true;
	for (size_t i = 0; i < ret->count; i++) {
		struct mc_tensor *t = &ret->items[i].tensor;
		t->data = mc_arena_zalloc(
		    env->arena, mc_tensor_bytes(t), 1, "parameters of attention", err);
		if (t->data == NULL)
			return false;
	}
	bool quantized = parts_of(job, layer, &parts);
	mc_assert(quantized && observer != NULL);
	struct mc_head_ranges *const ranges[KINDS] = {
	    observer->query, observer->key, observer->value};
	for (size_t kind = 0; kind < KINDS; kind++) {
		struct mc_tensor *scale = find(ret, scale_names[kind]);
		if (scale != NULL && !quantize_kind(&parts, ranges[kind], scale,
					 find(ret, zero_names[kind]), name, err))
			return false;
	}
	return true;
}

uint64_t mc_quantize_attention_bytes(const struct mc_job *job, size_t layer)
{
	struct mc_packed layout;
	uint64_t bytes = 0;

	mc_job_attention_layout(job, layer, &layout);
	for (size_t i = 0; i < layout.count; i++)
		bytes += mc_tensor_bytes(&layout.items[i].tensor) + 64;
	return bytes;
}
