/*
 * scheme_group.c - one config group (QuantizationScheme), the map of all of them, a written config
 */
#include "scheme_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/match.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

static const char *const keys[] = {
    "format", "input_activations", "output_activations", "targets", "weights"};

void mc_quant_config_init(struct mc_quant_config *config)
{
	*config = (struct mc_quant_config){0};
}

void mc_quant_config_release(struct mc_quant_config *config)
{
	for (size_t i = 0; i < config->count; i++)
		mc_scheme_release(&config->schemes[i]);
	free(config->schemes);
	mc_strings_free(config->ignore, config->ignore_count);
	mc_quant_args_release(&config->kv_cache);
	*config = (struct mc_quant_config){0};
}

struct mc_scheme *mc_quant_config_add(struct mc_quant_config *config, struct mc_error *err)
{
	struct mc_scheme *grown = reallocarray(config->schemes, config->count + 1, sizeof *grown);

	if (grown == NULL) {
		(void)mc_fail(err, MC_NO_MEMORY, "config_groups", "cannot allocate %zu groups",
		    config->count + 1);
		return NULL;
	}
	config->schemes = grown;
	grown[config->count] = (struct mc_scheme){0};
	return &grown[config->count++];
}

/* --- one group -------------------------------------------------------------------------------- */

/* Reads args at `key` when there are any. */
static bool read_args(const struct mc_json *json, const char *pointer, const char *key,
    struct mc_quant_args *args, bool *ret_has, const struct mc_scheme_reader *reader,
    struct mc_error *err)
{
	struct mc_field field = mc_field_get(json, pointer, key);

	*ret_has = !mc_json_is_null(field.value);
	return !*ret_has || mc_quant_args_read(args, field.value, field.where, reader, err);
}

static void check_activations(const struct mc_quant_args *args, bool input, const char *pointer,
    const char *key, struct mc_problems *problems)
{
	char where[160], inner[160];

	mc_pointer_join(where, pointer, key);
	if (args->actorder[0] != '\0')
		mc_problems_add(problems, mc_pointer_join(inner, where, "actorder"),
		    "is '%s'; activations have no order, needed null", args->actorder);
	if (input && (args->strategy == MC_STRATEGY_CHANNEL || args->strategy == MC_STRATEGY_BLOCK))
		mc_problems_add(problems, mc_pointer_join(inner, where, "strategy"),
		    "is for weights only; inputs need token, tensor, group, tensor_group or "
		    "attn_head");
}

static bool find_format(const char *name, enum mc_format *ret)
{
	for (enum mc_format f = MC_FORMAT_DENSE; f <= MC_FORMAT_MIXED; f++) {
		if (strcmp(name, mc_format_name(f)) != 0)
			continue;
		*ret = f;
		return true;
	}
	return false;
}

/* The format as asked for must be the one that the scheme has anyway. */
static void read_format(struct mc_scheme *scheme, const struct mc_json *json, const char *pointer,
    const struct mc_scheme_reader *reader)
{
	struct mc_field field = mc_field_get(json, pointer, "format");
	enum mc_format inferred, asked;
	struct mc_error err;

	mc_error_init(&err);
	if (!mc_scheme_infer_format(scheme, &inferred, &err)) {
		char where[160];
		mc_problems_add(
		    reader->problems, mc_pointer_join(where, pointer, "weights"), "%s", err.text);
		return;
	}
	scheme->format = inferred;
	if (mc_json_is_null(field.value))
		return;
	if (mc_json_type(field.value) != MC_JSON_STRING) {
		mc_field_wrong_type(&field, "a format's name or null", reader->problems);
		return;
	}
	const char *name = mc_json_string(field.value, NULL);
	if (!find_format(name, &asked))
		mc_problems_add(reader->problems, field.where,
		    "unknown format '%.64s'; this scheme's is '%s'", name,
		    mc_format_name(inferred));
	else if (reader->written)
		scheme->format = asked;
	else if (asked != inferred)
		mc_problems_add(reader->problems, field.where,
		    "is '%s'; this scheme is written as '%s'", name, mc_format_name(inferred));
}

bool mc_scheme_read(struct mc_scheme *scheme, const char *name, const struct mc_json *json,
    const char *pointer, const struct mc_scheme_reader *reader, struct mc_error *err)
{
	struct mc_field targets = mc_field_get(json, pointer, "targets");
	size_t before = reader->problems->total;

	if (scheme->name == NULL && (scheme->name = mc_strdup(name, err)) == NULL)
		return false;
	if (mc_json_type(json) != MC_JSON_OBJECT) {
		struct mc_field field = {.value = json};
		snprintf(field.where, sizeof field.where, "%s", pointer);
		mc_field_wrong_type(&field, "an object with targets and weights", reader->problems);
		return true;
	}
	if (!reader->written)
		mc_keys_require(json, pointer, keys, COUNT(keys), reader->problems);
	if (targets.value == NULL)
		mc_problems_add(reader->problems, pointer,
		    "has no targets; needed a list such as [\"Linear\"]");
	else if (!mc_strings_read(
		     &targets, &scheme->targets, &scheme->targets_count, reader->problems, err))
		return false;
	if (!read_args(
		json, pointer, "weights", &scheme->weights, &scheme->has_weights, reader, err) ||
	    !read_args(json, pointer, "input_activations", &scheme->input, &scheme->has_input,
		reader, err) ||
	    !read_args(json, pointer, "output_activations", &scheme->output, &scheme->has_output,
		reader, err))
		return false;
	if (scheme->has_input)
		check_activations(
		    &scheme->input, true, pointer, "input_activations", reader->problems);
	if (scheme->has_output)
		check_activations(
		    &scheme->output, false, pointer, "output_activations", reader->problems);
	if (reader->problems->total == before)
		read_format(scheme, json, pointer, reader);
	return true;
}

/* --- all groups ------------------------------------------------------------------------------- */

/* One member: a scheme, or a preset's name with the list of its targets. */
static bool read_group(struct mc_quant_config *config, const char *key,
    const struct mc_field *field, const struct mc_scheme_reader *reader, struct mc_error *err)
{
	bool list = mc_json_type(field->value) == MC_JSON_ARRAY;

	if (list && !mc_scheme_is_preset(key)) {
		mc_preset_unknown(field->where, key, reader->problems);
		return true;
	}
	struct mc_scheme *scheme = mc_quant_config_add(config, err);
	if (scheme == NULL)
		return false;
	if (!list)
		return mc_scheme_read(scheme, key, field->value, field->where, reader, err);
	return mc_scheme_make(scheme, key, key, err) &&
	       mc_strings_read(
		   field, &scheme->targets, &scheme->targets_count, reader->problems, err);
}

bool mc_config_groups_read(struct mc_quant_config *config, const struct mc_field *field,
    const struct mc_scheme_reader *reader, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(field->value);

	if (mc_json_type(field->value) != MC_JSON_OBJECT) {
		mc_field_wrong_type(field, "an object of groups", reader->problems);
		return true;
	}
	/* written files have none where only the KV cache is quantized */
	if (mc_json_size(field->value) == 0 && !reader->written)
		mc_problems_add(
		    reader->problems, field->where, "is empty; needed at least one group");
	while (mc_json_next(&member)) {
		struct mc_field group = {.value = member.value};
		mc_pointer_join(group.where, field->where, member.key);
		if (!read_group(config, member.key, &group, reader, err))
			return false;
	}
	return true;
}

/* --- a written config ------------------------------------------------------------------------- */

/* Older files give no format a group; the one at the top is every group's then. */
static void inherit_format(
    struct mc_quant_config *config, const struct mc_json *groups, const struct mc_json *top)
{
	enum mc_format format;

	if (top == NULL || mc_json_type(top) != MC_JSON_STRING ||
	    !find_format(mc_json_string(top, NULL), &format) || format == MC_FORMAT_MIXED)
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
	if (!mc_json_is_null(ignore.value) && !mc_strings_read(&ignore, &config->ignore,
						  &config->ignore_count, reader->problems, err))
		return false;
	if (!read_args(
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
