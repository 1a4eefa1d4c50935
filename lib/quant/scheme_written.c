/*
 * scheme_written.c - the quantization_config that a checkpoint carries
 */
#include "scheme_parse.h"

#include <stdio.h>
#include <string.h>

/* --- what other programs and older versions wrote ----------------------------------------------
 */

static const char *text_at(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : NULL;
}

static bool require_format(const char *format, const char *where, struct mc_error *err)
{
	return format == NULL || !mc_format_is_legacy(format) ||
	       mc_fail(err, MC_UNSUPPORTED, where,
		   "format '%s' is one of older versions and is not read; needed pack-quantized, "
		   "int-quantized, float-quantized, naive-quantized, nvfp4-pack-quantized, "
		   "mxfp4-pack-quantized or mxfp8-quantized",
		   format);
}

/* Other methods and formats are refused by name before their words are looked at. */
static bool require_readable(const struct mc_json *json, struct mc_error *err)
{
	const char *method = text_at(json, "quant_method");
	const char *sparsity = text_at(mc_json_get(json, "sparsity_config"), "format");
	struct mc_json_iter group = mc_json_iter(mc_json_get(json, "config_groups"));

	if (method != NULL && strcmp(method, "compressed-tensors") != 0)
		return mc_fail(err, MC_UNSUPPORTED, "quantization_config/quant_method",
		    "is '%.64s'; needed compressed-tensors", method);
	if (sparsity != NULL && strcmp(sparsity, "dense") != 0)
		return mc_fail(err, MC_UNSUPPORTED, "quantization_config/sparsity_config/format",
		    "is '%.64s': sparse weights are not read; needed dense", sparsity);
	if (!require_format(text_at(json, "format"), "quantization_config/format", err))
		return false;
	while (mc_json_next(&group)) {
		char where[192], inner[160];
		mc_pointer_join(inner, "/config_groups", group.key);
		snprintf(where, sizeof where, "quantization_config%s/format", inner);
		if (!require_format(text_at(group.value, "format"), where, err))
			return false;
	}
	return true;
}

const struct mc_json *mc_quant_config_find(const struct mc_json *config)
{
	const struct mc_json *const places[] = {mc_json_get(config, "quantization_config"),
	    mc_json_get(mc_json_get(config, "text_config"), "quantization_config"),
	    mc_json_get(config, "compression_config")};

	for (size_t i = 0; i < sizeof places / sizeof *places; i++)
		if (!mc_json_is_null(places[i]))
			return places[i];
	return NULL;
}

/* --- reading ---------------------------------------------------------------------------------- */

/* Older files give no format a group; the one at the top is every group's then. */
static void inherit_format(
    struct mc_quant_config *config, const struct mc_json *groups, const struct mc_json *top)
{
	enum mc_format format;

	if (top == NULL || mc_json_type(top) != MC_JSON_STRING ||
	    !mc_format_find(mc_json_string(top, NULL), &format) || format == MC_FORMAT_MIXED)
		return;
	for (size_t i = 0; i < config->count; i++) {
		const struct mc_json *group = mc_json_get(groups, config->schemes[i].name);
		if (mc_json_is_null(mc_json_get(group, "format")) && config->schemes[i].has_weights)
			config->schemes[i].format = format;
	}
}

static bool read_written(struct mc_quant_config *config, const struct mc_json *json,
    const struct mc_scheme_reader *reader, struct mc_error *err)
{
	struct mc_field groups = mc_field_get(json, "", "config_groups");
	struct mc_field ignore = mc_field_get(json, "", "ignore");

	if (groups.value == NULL)
		mc_problems_add(reader->problems, "", "has no config_groups");
	else if (!mc_config_groups_read(config, &groups, reader, err))
		return false;
	if (!mc_json_is_null(ignore.value) && !mc_strings_read(&ignore, true, &config->ignore,
						  &config->ignore_count, reader->problems, err))
		return false;
	if (!mc_args_member_read(
		json, "", "kv_cache_scheme", &config->kv_cache, &config->has_kv_cache, reader, err))
		return false;
	if (reader->problems->total == 0)
		inherit_format(config, groups.value, mc_json_get(json, "format"));
	return true;
}

bool mc_quant_config_read(
    struct mc_quant_config *config, const struct mc_json *quantization_config, struct mc_error *err)
{
	struct mc_problems problems;
	struct mc_scheme_reader reader = {.problems = &problems, .written = true};

	mc_quant_config_init(config);
	if (quantization_config == NULL || mc_json_type(quantization_config) != MC_JSON_OBJECT)
		return mc_fail(
		    err, MC_CORRUPT, "quantization_config", "is missing or not an object");
	if (!require_readable(quantization_config, err))
		return false;
	mc_problems_init(&problems);
	bool ok = read_written(config, quantization_config, &reader, err);
	if (ok && problems.total > 0) {
		bool kept = problems.count > 0;
		char where[192];
		snprintf(where, sizeof where, "quantization_config%s",
		    kept ? problems.items[0].pointer : "");
		ok = mc_fail(err, MC_CORRUPT, where, "%s (%zu in all)",
		    kept ? problems.items[0].text : "is not valid", problems.total);
	}
	mc_problems_release(&problems);
	if (!ok)
		mc_quant_config_release(config);
	return ok;
}
