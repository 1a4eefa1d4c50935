/*
 * job_attention.c - which attention module gets which scheme, and what such a scheme may say
 *
 * Matching (quant/match.c) gives one to those that a target means itself: "re:.*self_attn" is about
 * the linears there, "re:.*self_attn$" about attention.
 */
#include <string.h>

#include "quantize_attention.h"

#include "moecal/alloc.h"

/* --- what a scheme may say -------------------------------------------------------------------- */

static bool is_minmax(const char *observer)
{
	enum mc_observer_kind kind;

	return observer[0] == '\0' || mc_observer_find(observer, &kind);
}

static bool require_numbers(
    const struct mc_quant_args *args, const char *where, struct mc_error *err)
{
	bool is_float = args->type == MC_QUANT_FLOAT;

	if (args->num_bits > 8 || (is_float && args->num_bits != 8))
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "q, k and v in %u-bit %s are not there yet; needed float with 8 bits or int "
		    "with 1 to 8",
		    args->num_bits, is_float ? "floats" : "integers");
	if (args->scale_dtype[0] != '\0')
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "scale_dtype %s is not there yet for q, k and v; needed null",
		    args->scale_dtype);
	const char *zero = is_float ? "torch.float8_e4m3fn" : "torch.int8";
	if (!args->symmetric && strcmp(args->zp_dtype, zero) != 0)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "zp_dtype %s is not there yet for q, k and v; needed %s", args->zp_dtype, zero);
	return true;
}

bool mc_attention_require_supported(
    const struct mc_quant_args *args, const char *where, struct mc_error *err)
{
	if (args->actorder[0] != '\0')
		return mc_fail(err, MC_INVALID, where,
		    "actorder is '%s'; q, k and v have no order, needed null", args->actorder);
	if (args->dynamic == MC_DYNAMIC_YES)
		return true; /* nothing is computed or stored for it */
	if (args->dynamic == MC_DYNAMIC_LOCAL)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "dynamic \"local\" is not there for q, k and v; needed false or true");
	if (args->strategy != MC_STRATEGY_TENSOR && args->strategy != MC_STRATEGY_ATTN_HEAD)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "q, k and v have a scale per tensor or per head: needed strategy 'tensor' or "
		    "'attn_head'");
	if (!is_minmax(args->observer))
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "observer '%s' is not there yet for q, k and v; needed memoryless_minmax, "
		    "static_minmax or minmax",
		    args->observer);
	return require_numbers(args, where, err);
}

static bool require_scheme(const struct mc_scheme *scheme, const char *module, struct mc_error *err)
{
	if (scheme->has_weights)
		return mc_fail(err, MC_INVALID, scheme->name,
		    "has weights, but a target means %s itself, which has none; target its linears",
		    module);
	if (scheme->has_output)
		return mc_fail(err, MC_INVALID, scheme->name,
		    "has output_activations, but a target means %s itself: attention quantizes its "
		    "inputs q, k and v alone",
		    module);
	return mc_attention_require_supported(&scheme->input, scheme->name, err);
}

/* --- settling --------------------------------------------------------------------------------- */

static bool settle_layer(struct mc_job *job, size_t layer, struct mc_error *err)
{
	size_t index = job->model.layers[layer].attention, number = job->scheme[index];

	job->scheme[index] = job->attention[layer] = MC_NO_SCHEME;
	if (number == MC_NO_SCHEME)
		return true;
	const struct mc_scheme *scheme = &job->schemes[number];
	bool quantizes = scheme->has_weights || scheme->has_input || scheme->has_output;
	if (!quantizes)
		return true;
	job->attention[layer] = number;
	return require_scheme(scheme, job->model.modules[index]->name, err);
}

bool mc_job_settle_attention(struct mc_job *job, struct mc_error *err)
{
	const struct mc_quant_config *config = &job->spec->recipe.config;
	size_t layers = job->model.config.layers;
	bool query;

	job->attention = mc_alloc(layers, sizeof *job->attention, "schemes of attention", err);
	if (job->attention == NULL)
		return false;
	if (config->has_kv_cache &&
	    !mc_attention_require_supported(&config->kv_cache, "kv_cache_scheme", err))
		return false;
	for (size_t l = 0; l < layers; l++) {
		if (!settle_layer(job, l, err))
			return false;
		job->quantized += mc_job_attention(job, l, &query) != NULL;
	}
	return true;
}

bool mc_job_is_for_attention(const struct mc_job *job, size_t index)
{
	bool attention = false;

	for (size_t l = 0; l < job->model.config.layers; l++)
		attention = attention || job->attention[l] == index;
	for (size_t i = 0; i < job->model.modules_count; i++)
		attention = attention && job->scheme[i] != index;
	return attention;
}

const struct mc_quant_args *mc_job_attention(
    const struct mc_job *job, size_t layer, bool *ret_query)
{
	const struct mc_quant_config *config = &job->spec->recipe.config;

	*ret_query = job->attention[layer] != MC_NO_SCHEME;
	if (*ret_query)
		return &job->schemes[job->attention[layer]].input;
	return config->has_kv_cache ? &config->kv_cache : NULL;
}
