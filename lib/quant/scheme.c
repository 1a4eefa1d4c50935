/*
 * scheme.c - presets, checkpoint formats, what can be computed, one config group as JSON
 */
#include "scheme_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/qparams.h"
#include "moecal/weight_observer.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* --- presets ---------------------------------------------------------------------------------- */

#define INT_GROUP(bits)                                                                            \
	{                                                                                          \
		.type = MC_QUANT_INT, .num_bits = (bits), .symmetric = true,                       \
		.strategy = MC_STRATEGY_GROUP, .group_size = 128                                   \
	}
#define INT_GROUP_ASYMMETRIC(bits)                                                                 \
	{                                                                                          \
		.type = MC_QUANT_INT, .num_bits = (bits), .strategy = MC_STRATEGY_GROUP,           \
		.group_size = 128, .zp_dtype = "torch.int8"                                        \
	}
#define INT_CHANNEL(bits)                                                                          \
	{                                                                                          \
		.type = MC_QUANT_INT, .num_bits = (bits), .symmetric = true,                       \
		.strategy = MC_STRATEGY_CHANNEL                                                    \
	}
#define INT_TOKEN(bits)                                                                            \
	{                                                                                          \
		.type = MC_QUANT_INT, .num_bits = (bits), .symmetric = true,                       \
		.strategy = MC_STRATEGY_TOKEN, .dynamic = MC_DYNAMIC_YES                           \
	}
#define FP8(...)                                                                                   \
	{                                                                                          \
		.type = MC_QUANT_FLOAT, .num_bits = 8, .symmetric = true, __VA_ARGS__              \
	}
#define NVFP4(...)                                                                                 \
	{                                                                                          \
		.type = MC_QUANT_FLOAT, .num_bits = 4, .symmetric = true,                          \
		.strategy = MC_STRATEGY_TENSOR_GROUP, .group_size = 16,                            \
		.scale_dtype = "torch.float8_e4m3fn", __VA_ARGS__                                  \
	}
#define MX(bits, ...)                                                                              \
	{                                                                                          \
		.type = MC_QUANT_FLOAT, .num_bits = (bits), .symmetric = true,                     \
		.strategy = MC_STRATEGY_GROUP, .group_size = 32, .scale_dtype = "torch.uint8",     \
		__VA_ARGS__                                                                        \
	}
#define WEIGHTS(...) .has_weights = true, .weights = __VA_ARGS__
#define INPUT(...) .has_input = true, .input = __VA_ARGS__

/* An observer stands here only where the preset itself names one; the others are filled in later.
 */
static const struct preset {
	const char *name;
	bool has_weights, has_input;
	struct mc_quant_args weights, input;
} presets[] = {
    {"UNQUANTIZED", .has_weights = false},
    {"W2A16", WEIGHTS(INT_GROUP(2))},
    {"W3A16", WEIGHTS(INT_GROUP(3))},
    {"W4A16", WEIGHTS(INT_GROUP(4))},
    {"W5A16", WEIGHTS(INT_GROUP(5))},
    {"W6A16", WEIGHTS(INT_GROUP(6))},
    {"W7A16", WEIGHTS(INT_GROUP(7))},
    {"W8A16", WEIGHTS(INT_GROUP(8))},
    {"W4A16_ASYM", WEIGHTS(INT_GROUP_ASYMMETRIC(4))},
    {"W2A8", WEIGHTS(INT_GROUP(2)), INPUT(INT_TOKEN(8))},
    {"W3A8", WEIGHTS(INT_GROUP(3)), INPUT(INT_TOKEN(8))},
    {"W4A8", WEIGHTS(INT_GROUP(4)), INPUT(INT_TOKEN(8))},
    {"W5A8", WEIGHTS(INT_GROUP(5)), INPUT(INT_TOKEN(8))},
    {"W6A8", WEIGHTS(INT_GROUP(6)), INPUT(INT_TOKEN(8))},
    {"W7A8", WEIGHTS(INT_GROUP(7)), INPUT(INT_TOKEN(8))},
    {"W2A4", WEIGHTS(INT_GROUP(2)), INPUT(INT_TOKEN(4))},
    {"W3A4", WEIGHTS(INT_GROUP(3)), INPUT(INT_TOKEN(4))},
    {"W4A4", WEIGHTS(INT_GROUP(4)), INPUT(INT_TOKEN(4))},
    {"W8A8", WEIGHTS(INT_CHANNEL(8)), INPUT(INT_TOKEN(8))},
    {"INT8", WEIGHTS(INT_CHANNEL(8)), INPUT(INT_TOKEN(8))},
    {"W4AFP8", WEIGHTS(INT_GROUP(4)),
	INPUT(FP8(.strategy = MC_STRATEGY_TOKEN, .dynamic = MC_DYNAMIC_YES))},
    {"FP8", WEIGHTS(FP8(.strategy = MC_STRATEGY_TENSOR)),
	INPUT(FP8(.strategy = MC_STRATEGY_TENSOR, .observer = "static_minmax"))},
    {"FP8_DYNAMIC", WEIGHTS(FP8(.strategy = MC_STRATEGY_CHANNEL)),
	INPUT(FP8(.strategy = MC_STRATEGY_TOKEN, .dynamic = MC_DYNAMIC_YES))},
    {"FP8_BLOCK", WEIGHTS(FP8(.strategy = MC_STRATEGY_BLOCK, .block_rows = 128, .block_cols = 128)),
	INPUT(FP8(.strategy = MC_STRATEGY_GROUP, .group_size = 128, .dynamic = MC_DYNAMIC_YES))},
    {"NVFP4A16", WEIGHTS(NVFP4(.dynamic = MC_DYNAMIC_NO))},
    {"NVFP4", WEIGHTS(NVFP4(.dynamic = MC_DYNAMIC_NO)),
	INPUT(NVFP4(.dynamic = MC_DYNAMIC_LOCAL, .observer = "static_minmax"))},
    {"MXFP4A16", WEIGHTS(MX(4, .dynamic = MC_DYNAMIC_NO))},
    {"MXFP4", WEIGHTS(MX(4, .dynamic = MC_DYNAMIC_NO)), INPUT(MX(4, .dynamic = MC_DYNAMIC_YES))},
    {"MXFP8A16", WEIGHTS(MX(8, .dynamic = MC_DYNAMIC_NO))},
    {"MXFP8", WEIGHTS(MX(8, .dynamic = MC_DYNAMIC_NO)), INPUT(MX(8, .dynamic = MC_DYNAMIC_YES))},
};

static const struct preset *find_preset(const char *name)
{
	for (size_t i = 0; i < COUNT(presets); i++)
		if (mc_equal_folded(name, presets[i].name))
			return &presets[i];
	return NULL;
}

bool mc_scheme_is_preset(const char *name)
{
	return find_preset(name) != NULL;
}

void mc_preset_unknown(const char *where, const char *name, struct mc_problems *problems)
{
	const char *names[COUNT(presets)];

	for (size_t i = 0; i < COUNT(presets); i++)
		names[i] = presets[i].name;
	mc_name_unknown(where, "preset", name, names, COUNT(presets), problems);
}

bool mc_scheme_make(
    struct mc_scheme *scheme, const char *name, const char *preset, struct mc_error *err)
{
	const struct preset *row = find_preset(preset);

	mc_assert(row != NULL);
	*scheme = (struct mc_scheme){.has_weights = row->has_weights, .has_input = row->has_input};
	scheme->name = mc_strdup(name, err);
	return scheme->name != NULL && mc_quant_args_copy(&scheme->weights, &row->weights, err) &&
	       mc_quant_args_copy(&scheme->input, &row->input, err) &&
	       mc_scheme_infer_format(scheme, &scheme->format, err);
}

void mc_scheme_release(struct mc_scheme *scheme)
{
	free(scheme->name);
	mc_strings_free(scheme->targets, scheme->targets_count);
	mc_quant_args_release(&scheme->weights);
	mc_quant_args_release(&scheme->input);
	mc_quant_args_release(&scheme->output);
	*scheme = (struct mc_scheme){0};
}

bool mc_quant_config_preset(struct mc_quant_config *config, const char *name,
    const char *const *ignore, size_t ignore_count, struct mc_error *err)
{
	mc_quant_config_init(config);
	if (find_preset(name) == NULL) {
		struct mc_problems problems;
		mc_problems_init(&problems);
		mc_preset_unknown("", name, &problems);
		(void)mc_fail(err, MC_UNSUPPORTED, name, "%s",
		    problems.count > 0 ? problems.items[0].text : "unknown preset");
		mc_problems_release(&problems);
		return false;
	}
	/* By the way of a modifier, so that both ways fill in the same observers. */
	struct mc_json *modifier = mc_json_new_object(), *list = mc_json_new_array();
	bool ok = modifier != NULL && list != NULL;
	for (size_t i = 0; ok && i < ignore_count; i++)
		ok = mc_json_append(list, mc_json_new_string(ignore[i]), err);
	ok = ok && mc_json_set(modifier, "scheme", mc_json_new_string(name), err);
	if (ok) {
		ok = mc_json_set(modifier, "ignore", list, err);
		list = NULL;
	}
	struct mc_problems problems;
	mc_problems_init(&problems);
	ok = ok && mc_quant_config_parse(config, modifier, "", &problems, err);
	if (ok && problems.total > 0)
		ok = mc_fail(err, MC_INVALID, problems.count > 0 ? problems.items[0].pointer : "",
		    "%s",
		    problems.count > 0 ? problems.items[0].text : "the ignore list is not valid");
	mc_problems_release(&problems);
	mc_json_free(list);
	mc_json_free(modifier);
	if (!ok)
		mc_quant_config_release(config);
	return ok || mc_fail(err, MC_NO_MEMORY, name, "cannot allocate the scheme");
}

/* --- formats ---------------------------------------------------------------------------------- */

static const char *const formats[] = {
    [MC_FORMAT_DENSE] = "dense",
    [MC_FORMAT_PACK] = "pack-quantized",
    [MC_FORMAT_INT] = "int-quantized",
    [MC_FORMAT_FLOAT] = "float-quantized",
    [MC_FORMAT_NAIVE] = "naive-quantized",
    [MC_FORMAT_NVFP4] = "nvfp4-pack-quantized",
    [MC_FORMAT_MXFP4] = "mxfp4-pack-quantized",
    [MC_FORMAT_MXFP8] = "mxfp8-quantized",
    [MC_FORMAT_MIXED] = "mixed-precision",
};

const char *mc_format_name(enum mc_format format)
{
	mc_assert((size_t)format < COUNT(formats));
	return formats[format];
}

bool mc_scheme_infer_format(
    const struct mc_scheme *scheme, enum mc_format *ret, struct mc_error *err)
{
	const struct mc_quant_args *w = &scheme->weights;
	const char *where = scheme->name == NULL ? "" : scheme->name;
	bool is_float = w->type == MC_QUANT_FLOAT;

	if (!scheme->has_weights)
		*ret = MC_FORMAT_DENSE;
	else if (is_float && w->num_bits == 4 && w->group_size == 32)
		*ret = MC_FORMAT_MXFP4;
	else if (is_float && w->num_bits == 8 && w->group_size == 32 &&
		 strcmp(w->scale_dtype, "torch.uint8") == 0)
		*ret = MC_FORMAT_MXFP8;
	else if (is_float && w->num_bits == 4 && w->group_size == 16)
		*ret = MC_FORMAT_NVFP4;
	else if (is_float && w->num_bits == 4)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "4-bit floats need group_size 16 (NVFP4) or 32 (MXFP4), "
		    "found %lld: no checkpoint format stores them",
		    (long long)w->group_size);
	else if (!is_float && scheme->has_input)
		*ret = MC_FORMAT_INT;
	else if (!is_float && w->num_bits <= 8)
		*ret = MC_FORMAT_PACK;
	else if (is_float && scheme->has_input)
		*ret = MC_FORMAT_FLOAT;
	else
		*ret = MC_FORMAT_NAIVE;
	return true;
}

/* --- what can be computed --------------------------------------------------------------------- */

/* What weights and static inputs have in common. */
static bool require_args(
    const struct mc_quant_args *args, const char *where, const char *what, struct mc_error *err)
{
	bool is_float = args->type == MC_QUANT_FLOAT;

	if (!is_float && args->num_bits > 8)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "%s: %u-bit integers are not there yet; needed 1 to 8", what, args->num_bits);
	if (is_float && !args->symmetric)
		return mc_fail(
		    err, MC_UNSUPPORTED, where, "%s: asymmetric floats are not there yet", what);
	if (!args->symmetric && strcmp(args->zp_dtype, "torch.int8") != 0)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "%s: zp_dtype %s is not there yet; needed torch.int8", what, args->zp_dtype);
	return true; /* actorder orders the columns of GPTQ; rounding to nearest has no order */
}

/* Scales that are no numbers of the weight's dtype go with 4-bit floats or MX groups alone. */
static bool require_weight_scales(
    const struct mc_quant_args *args, const char *where, struct mc_error *err)
{
	bool fp4 = args->type == MC_QUANT_FLOAT && args->num_bits == 4;
	bool global = args->strategy == MC_STRATEGY_TENSOR_GROUP;

	if (global && !(fp4 && args->group_size == 16 && mc_args_e4m3_scale(args)))
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "weights: strategy 'tensor_group' is there for 4-bit floats with group_size 16 "
		    "and scale_dtype torch.float8_e4m3fn (NVFP4) alone");
	if (global || (mc_args_mx(args) && args->strategy == MC_STRATEGY_GROUP))
		return true;
	if (fp4)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "weights: 4-bit floats need strategy 'tensor_group' with scale_dtype "
		    "torch.float8_e4m3fn (NVFP4) or 'group' with group_size 32 and scale_dtype "
		    "torch.uint8 (MXFP4)");
	if (args->scale_dtype[0] != '\0')
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "weights: scale_dtype %s is not there yet; needed null", args->scale_dtype);
	return true;
}

static bool require_weights(
    const struct mc_quant_args *args, const char *where, struct mc_error *err)
{
	struct mc_weight_observer observer;
	const char *missing = NULL;

	if (args->strategy == MC_STRATEGY_ATTN_HEAD)
		missing = "attn_head";
	else if (args->strategy == MC_STRATEGY_TOKEN)
		missing = "token";
	if (!require_args(args, where, "weights", err) ||
	    !require_weight_scales(args, where, err) ||
	    !mc_weight_observer_make(&observer, args, where, err))
		return false;
	if (observer.strict &&
	    (args->strategy == MC_STRATEGY_TENSOR || args->strategy == MC_STRATEGY_BLOCK))
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "weights: observer %s weighs input channels, which strategies tensor and block "
		    "mix; needed channel, group or tensor_group, or strict false",
		    args->observer);
	if (missing != NULL)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "weights: strategy '%s' is not there yet; needed tensor, "
		    "channel, group, tensor_group or block",
		    missing);
	if (args->dynamic != MC_DYNAMIC_NO)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "weights: dynamic weights are not there; needed false");
	return true;
}

static bool require_input(const struct mc_quant_args *args, const char *where, struct mc_error *err)
{
	struct mc_weight_observer observer;

	if (args->dynamic == MC_DYNAMIC_YES)
		return true; /* nothing is computed or stored for it */
	if (args->strategy == MC_STRATEGY_ATTN_HEAD)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "input_activations: strategy 'attn_head' is not there yet");
	if (!mc_weight_observer_make(&observer, args, where, err))
		return false;
	if (observer.search == MC_SEARCH_IMATRIX)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "input_activations: observer '%s' is for weights", args->observer);
	if (args->dynamic == MC_DYNAMIC_LOCAL) {
		if (args->type != MC_QUANT_FLOAT || args->num_bits != 4 || !args->symmetric)
			return mc_fail(err, MC_UNSUPPORTED, where,
			    "input_activations: dynamic \"local\" is there for symmetric 4-bit "
			    "floats alone");
		return true;
	}
	if (!require_args(args, where, "input_activations", err))
		return false;
	if (args->scale_dtype[0] != '\0' || (args->type == MC_QUANT_FLOAT && args->num_bits == 4))
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "input_activations: static 4-bit floats and scale_dtype are not there yet");
	if (args->strategy != MC_STRATEGY_TENSOR)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "input_activations: static activations need strategy 'tensor'; others are not "
		    "there yet");
	return true;
}

bool mc_scheme_require_supported(const struct mc_scheme *scheme, struct mc_error *err)
{
	const char *where = scheme->name == NULL ? "" : scheme->name;
	enum mc_format format;

	if (scheme->has_output && scheme->output.dynamic != MC_DYNAMIC_YES)
		return mc_fail(
		    err, MC_UNSUPPORTED, where, "static output_activations are not there yet");
	if (scheme->has_input && !require_input(&scheme->input, where, err))
		return false;
	if (!scheme->has_weights && scheme->has_input)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "input_activations without weights are not there yet");
	if (!scheme->has_weights)
		return true;
	if (!require_weights(&scheme->weights, where, err) ||
	    !mc_scheme_infer_format(scheme, &format, err))
		return false;
	if (scheme->format != format)
		return mc_fail(err, MC_UNSUPPORTED, where,
		    "format '%s' is not there yet for this scheme; needed '%s'",
		    mc_format_name(scheme->format), mc_format_name(format));
	return true;
}

bool mc_quant_config_needs_data(const struct mc_quant_config *config)
{
	for (size_t i = 0; i < config->count; i++) {
		const struct mc_scheme *scheme = &config->schemes[i];
		if (scheme->has_input && scheme->input.dynamic != MC_DYNAMIC_YES)
			return true;
		if (scheme->has_output && scheme->output.dynamic != MC_DYNAMIC_YES)
			return true;
		/* spelled exactly so, as the reference compares them */
		if (scheme->has_weights &&
		    (strcmp(scheme->weights.observer, "imatrix_mse") == 0 ||
			strcmp(scheme->weights.observer, "nvfp4_expanded_imatrix") == 0))
			return true;
	}
	return config->has_kv_cache;
}

/* --- writing ---------------------------------------------------------------------------------- */

static struct mc_json *targets_json(const struct mc_scheme *scheme, struct mc_error *err)
{
	struct mc_json *list = mc_json_new_array();

	for (size_t i = 0; list != NULL && i < scheme->targets_count; i++) {
		if (!mc_json_append(list, mc_json_new_string(scheme->targets[i]), err)) {
			mc_json_free(list);
			return NULL;
		}
	}
	return list;
}

struct mc_json *mc_scheme_json(const struct mc_scheme *scheme, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();

	if (json == NULL) {
		(void)mc_fail(err, MC_NO_MEMORY, "", "cannot allocate an object");
		return NULL;
	}
	if (mc_json_set(json, "format", mc_json_new_string(mc_format_name(scheme->format)), err) &&
	    mc_json_set(json, "input_activations",
		mc_quant_args_json(scheme->has_input ? &scheme->input : NULL, err), err) &&
	    mc_json_set(json, "output_activations",
		mc_quant_args_json(scheme->has_output ? &scheme->output : NULL, err), err) &&
	    mc_json_set(json, "targets", targets_json(scheme, err), err) &&
	    mc_json_set(json, "weights",
		mc_quant_args_json(scheme->has_weights ? &scheme->weights : NULL, err), err))
		return json;
	mc_json_free(json);
	return NULL;
}
