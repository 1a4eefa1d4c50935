/*
 * dequantize_config.c - what config.json says about the quantization of an input, and refusals
 */
#include "config_dtype.h"
#include "dequantize.h"

#include <string.h>

#include "moecal/alloc.h"

#define WHERE "config.json"
#define READABLE "compressed-tensors and fp8 with weight_block_size can be read"

static const char *text_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : NULL;
}

/* --- compressed-tensors ----------------------------------------------------------------------- */

/* Names of formats that were written once and that no scheme leads to. */
static bool require_known_format(const struct mc_json *json, struct mc_error *err)
{
	const char *name = text_of(json, "format");

	/* what stands there before a checkpoint is saved, and of older versions; groups say more */
	if (name == NULL || strcmp(name, "fakequant") == 0)
		return true;
	for (enum mc_format f = MC_FORMAT_DENSE; f <= MC_FORMAT_MIXED; f++)
		if (strcmp(name, mc_format_name(f)) == 0)
			return true;
	return mc_fail(err, MC_UNSUPPORTED, WHERE,
	    "the checkpoint is quantized in the format '%.40s', which cannot be read back", name);
}

/* Weights that are sparse or rotated as well are not what their codes and scales alone say. */
static bool require_absent(const struct mc_json *json, const char *key, struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(json, key);
	const char *format = text_of(value, "format");

	if (mc_json_is_null(value) || mc_json_size(value) == 0 ||
	    (format != NULL && strcmp(format, "dense") == 0))
		return true;
	return mc_fail(err, MC_UNSUPPORTED, WHERE,
	    "the checkpoint is quantized with a %s%s%.40s, which cannot be read back", key,
	    format != NULL ? " of format " : "", format != NULL ? format : "");
}

static bool read_compressed(
    struct mc_old_quantization *old, const struct mc_json *json, struct mc_error *err)
{
	return require_known_format(json, err) && require_absent(json, "sparsity_config", err) &&
	       require_absent(json, "transform_config", err) &&
	       mc_quant_config_read(&old->config, json, err);
}

/* --- block FP8 -------------------------------------------------------------------------------- */

static bool has_scale_inv(const struct mc_checkpoint *checkpoint)
{
	for (size_t i = 0; i < checkpoint->count; i++) {
		const char *dot = strrchr(checkpoint->tensors[i].entry->name, '.');
		if (dot != NULL && strcmp(dot, ".weight_scale_inv") == 0)
			return true;
	}
	return false;
}

/* Left out, it is [128, 128], but then only the scales tell this format from other ones. */
static bool read_block(const struct mc_json *json, const struct mc_checkpoint *checkpoint,
    uint64_t block[2], struct mc_error *err)
{
	const struct mc_json *value = mc_json_get(json, "weight_block_size");

	block[0] = block[1] = 128;
	if (value == NULL && has_scale_inv(checkpoint))
		return true;
	if (mc_json_is_null(value))
		return mc_fail(err, MC_UNSUPPORTED, WHERE,
		    "the checkpoint is already quantized (quant_method fp8 without "
		    "weight_block_size), which cannot be read; " READABLE);
	for (size_t i = 0; i < 2; i++) {
		const struct mc_json *n = mc_json_at(value, i);
		if (mc_json_size(value) != 2 || n == NULL || mc_json_type(n) != MC_JSON_INTEGER ||
		    mc_json_integer(n) < 1 || mc_json_integer(n) > INT32_MAX)
			return mc_fail(err, MC_CORRUPT, WHERE,
			    "weight_block_size must be two positive integers, [rows, columns]");
		block[i] = (uint64_t)mc_json_integer(n);
	}
	return true;
}

static bool read_kept(
    struct mc_old_quantization *old, const struct mc_json *json, struct mc_error *err)
{
	const struct mc_json *list = mc_json_get(json, "modules_to_not_convert");

	if (mc_json_is_null(list))
		return true;
	for (size_t i = 0; i < mc_json_size(list) || mc_json_type(list) != MC_JSON_ARRAY; i++) {
		const struct mc_json *one = mc_json_at(list, i);
		if (one == NULL || mc_json_type(one) != MC_JSON_STRING)
			return mc_fail(err, MC_CORRUPT, WHERE,
			    "modules_to_not_convert must be a list of names of modules");
	}
	old->kept = list;
	return true;
}

bool mc_old_quantization_keeps(const struct mc_old_quantization *old, const char *module)
{
	for (size_t i = 0; i < mc_json_size(old->kept); i++) {
		const char *part = mc_json_string(mc_json_at(old->kept, i), NULL), *at = module;
		size_t length = strlen(part);
		/* whole parts of the dotted name: "mlp.gate" is none of "mlp.gate_proj" */
		while (length > 0 && (at = strstr(at, part)) != NULL) {
			bool begins = at == module || at[-1] == '.';
			if (begins && (at[length] == '\0' || at[length] == '.'))
				return true;
			at++;
		}
	}
	return false;
}

/* The same numbers as compressed-tensors' FP8 in blocks; only the scale has another name. */
static bool read_block_fp8(struct mc_old_quantization *old, const struct mc_json *json,
    const struct mc_model *model, struct mc_error *err)
{
	const char *kind = text_of(json, "fmt");
	uint64_t block[2];

	if (kind != NULL && strcmp(kind, "e4m3") != 0)
		return mc_fail(err, MC_UNSUPPORTED, WHERE,
		    "the checkpoint is already quantized (quant_method fp8, fmt %.40s); only e4m3 "
		    "can be read",
		    kind);
	if (!read_block(json, &model->checkpoint, block, err) || !read_kept(old, json, err) ||
	    !mc_quant_config_preset(&old->config, "FP8_BLOCK", NULL, 0, err))
		return false;
	struct mc_scheme *scheme = &old->config.schemes[0];
	old->block_fp8 = true;
	scheme->has_input = false;
	scheme->format = MC_FORMAT_FLOAT;
	scheme->weights.block_rows = block[0];
	scheme->weights.block_cols = block[1];
	return true;
}

/* --- the whole -------------------------------------------------------------------------------- */

bool mc_old_quantization_read(
    struct mc_old_quantization *old, const struct mc_model *model, struct mc_error *err)
{
	const struct mc_json *json = mc_model_quantization(model->config_json);
	const char *method = text_of(json, "quant_method");

	*old = (struct mc_old_quantization){.dtype = mc_config_dtype(model->config_json)};
	mc_quant_config_init(&old->config);
	if (mc_json_type(json) != MC_JSON_OBJECT)
		return mc_fail(err, MC_CORRUPT, WHERE,
		    "quantization_config must be an object, not %s",
		    mc_json_type_name(mc_json_type(json)));
	/* the first versions of the format did not say whose it is */
	bool compressed = method == NULL ? mc_json_get(json, "config_groups") != NULL
					 : strcmp(method, "compressed-tensors") == 0;
	if (compressed)
		return read_compressed(old, json, err);
	if (method != NULL && strcmp(method, "fp8") == 0)
		return read_block_fp8(old, json, model, err);
	return mc_fail(err, MC_UNSUPPORTED, WHERE,
	    "the checkpoint is already quantized (quant_method %.40s), which cannot be "
	    "read; " READABLE,
	    method != NULL ? method : "not named");
}

void mc_old_quantization_release(struct mc_old_quantization *old)
{
	mc_quant_config_release(&old->config);
	*old = (struct mc_old_quantization){0};
}
