/*
 * scheme_group.c - one config group (QuantizationScheme) and the map of all of them
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
	free(config->parts);
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

bool mc_args_member_read(const struct mc_json *json, const char *pointer, const char *key,
    struct mc_quant_args *args, bool *ret_has, const struct mc_scheme_reader *reader,
    struct mc_error *err)
{
	struct mc_field field = mc_field_get(json, pointer, key);

	*ret_has = !mc_json_is_null(field.value);
	return !*ret_has || mc_quant_args_read(args, field.value, field.where, reader, err);
}

void mc_activation_check(const struct mc_quant_args *args, enum mc_activation kind,
    const char *where, struct mc_problems *problems)
{
	enum mc_strategy strategy = args->strategy;
	bool weights_only = strategy == MC_STRATEGY_CHANNEL || strategy == MC_STRATEGY_BLOCK;
	bool grouped = strategy == MC_STRATEGY_GROUP || strategy == MC_STRATEGY_TENSOR_GROUP;
	char inner[160];

	if (args->actorder[0] != '\0')
		mc_problems_add(problems, mc_pointer_join(inner, where, "actorder"),
		    "is '%s'; activations have no order, needed null", args->actorder);
	mc_pointer_join(inner, where, "strategy");
	if (kind != MC_ACTIVATION_OUTPUT && weights_only)
		mc_problems_add(problems, inner,
		    "is for weights only; inputs need token, tensor, group, tensor_group or "
		    "attn_head");
	else if (kind == MC_ACTIVATION_KV && grouped && args->dynamic != MC_DYNAMIC_YES)
		mc_problems_add(problems, inner,
		    "has groups, which a cache has not; needed tensor or attn_head");
}

bool mc_format_find(const char *name, enum mc_format *ret)
{
	for (enum mc_format f = MC_FORMAT_DENSE; f <= MC_FORMAT_MIXED; f++) {
		if (strcmp(name, mc_format_name(f)) != 0)
			continue;
		*ret = f;
		return true;
	}
	return false;
}

/* Names that readers once knew and that nothing writes any more. */
bool mc_format_is_legacy(const char *name)
{
	static const char *const legacy[] = {"sparse-bitmask", "sparse-24-bitmask", "marlin-24"};

	for (size_t i = 0; i < COUNT(legacy); i++)
		if (strcmp(name, legacy[i]) == 0)
			return true;
	return false;
}

/* A format that was asked for stays; whether it can be written is asked later. */
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
	if (mc_format_is_legacy(name))
		mc_problems_add(reader->problems, field.where,
		    "'%s' is a format of older versions, which nothing writes any more; this "
		    "scheme's is '%s'",
		    name, mc_format_name(inferred));
	else if (!mc_format_find(name, &asked))
		mc_problems_add(reader->problems, field.where,
		    "unknown format '%.64s'; this scheme's is '%s'", name,
		    mc_format_name(inferred));
	else if (asked == MC_FORMAT_MIXED)
		mc_problems_add(reader->problems, field.where,
		    "is 'mixed-precision', which only a whole model can be; this scheme's is '%s'",
		    mc_format_name(inferred));
	else
		scheme->format = asked;
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
	else if (!mc_strings_read(&targets, reader->written, &scheme->targets,
		     &scheme->targets_count, reader->problems, err))
		return false;
	if (!mc_args_member_read(
		json, pointer, "weights", &scheme->weights, &scheme->has_weights, reader, err) ||
	    !mc_args_member_read(json, pointer, "input_activations", &scheme->input,
		&scheme->has_input, reader, err) ||
	    !mc_args_member_read(json, pointer, "output_activations", &scheme->output,
		&scheme->has_output, reader, err))
		return false;
	char where[160];
	if (scheme->has_input)
		mc_activation_check(&scheme->input, MC_ACTIVATION_INPUT,
		    mc_pointer_join(where, pointer, "input_activations"), reader->problems);
	if (scheme->has_output)
		mc_activation_check(&scheme->output, MC_ACTIVATION_OUTPUT,
		    mc_pointer_join(where, pointer, "output_activations"), reader->problems);
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
		   field, false, &scheme->targets, &scheme->targets_count, reader->problems, err);
}

bool mc_config_groups_read(struct mc_quant_config *config, const struct mc_field *field,
    const struct mc_scheme_reader *reader, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(field->value);

	if (mc_json_type(field->value) != MC_JSON_OBJECT) {
		mc_field_wrong_type(field, "an object of groups", reader->problems);
		return true;
	}
	while (mc_json_next(&member)) {
		struct mc_field group = {.value = member.value};
		mc_pointer_join(group.where, field->where, member.key);
		if (!read_group(config, member.key, &group, reader, err))
			return false;
	}
	return true;
}

/* --- several modifiers ------------------------------------------------------------------------ */

static bool name_is_taken(const struct mc_quant_config *config, const char *name)
{
	for (size_t i = 0; i < config->count; i++)
		if (strcmp(config->schemes[i].name, name) == 0)
			return true;
	return false;
}

/* group_0 becomes the first free of group_1, group_2 ... */
static bool rename_group(
    const struct mc_quant_config *config, struct mc_scheme *scheme, struct mc_error *err)
{
	size_t stem = strlen(scheme->name);
	char *name = mc_strdup(scheme->name, err);

	while (stem > 0 && scheme->name[stem - 1] >= '0' && scheme->name[stem - 1] <= '9')
		stem--;
	if (stem == 0 || scheme->name[stem] == '\0')
		stem = strlen(scheme->name);
	bool numbered = scheme->name[stem] != '\0';
	for (size_t i = 1; name != NULL && name_is_taken(config, name); i++) {
		free(name);
		name = mc_format(err, "%.*s%s%zu", (int)stem, scheme->name, numbered ? "" : "_", i);
	}
	free(scheme->name);
	scheme->name = name;
	return name != NULL;
}

static bool add_part(
    struct mc_quant_config *config, size_t schemes, size_t ignore, struct mc_error *err)
{
	struct mc_quant_part *grown = reallocarray(
	    config->parts, config->parts_count + 1, sizeof *grown);

	if (grown == NULL)
		return mc_fail(err, MC_NO_MEMORY, "recipe", "cannot allocate %zu modifiers",
		    config->parts_count + 1);
	config->parts = grown;
	grown[config->parts_count++] = (struct mc_quant_part){.schemes = schemes, .ignore = ignore};
	return true;
}

static bool take_ignore(
    struct mc_quant_config *config, struct mc_quant_config *from, struct mc_error *err)
{
	size_t count = config->ignore_count + from->ignore_count;

	if (from->ignore_count == 0)
		return true;
	char **grown = reallocarray(config->ignore, count, sizeof *grown);
	if (grown == NULL)
		return mc_fail(err, MC_NO_MEMORY, "ignore", "cannot allocate %zu names", count);
	config->ignore = grown;
	memcpy(grown + config->ignore_count, from->ignore, from->ignore_count * sizeof *grown);
	config->ignore_count = count;
	from->ignore_count = 0;
	return true;
}

bool mc_quant_config_append(
    struct mc_quant_config *config, struct mc_quant_config *from, struct mc_error *err)
{
	size_t schemes = from->count, ignore = from->ignore_count;

	mc_assert(from->parts_count == 0);
	if (config->parts_count == 0 && !add_part(config, config->count, config->ignore_count, err))
		return false;
	if (!take_ignore(config, from, err))
		return false;
	for (size_t i = 0; i < schemes; i++) {
		struct mc_scheme *scheme = rename_group(config, &from->schemes[i], err)
					       ? mc_quant_config_add(config, err)
					       : NULL;
		if (scheme == NULL)
			return false;
		*scheme = from->schemes[i];
		from->schemes[i] = (struct mc_scheme){0};
	}
	if (from->has_kv_cache) {
		mc_quant_args_release(&config->kv_cache);
		config->has_kv_cache = true;
		config->kv_cache = from->kv_cache;
		from->kv_cache = (struct mc_quant_args){0};
	}
	mc_quant_config_release(from);
	return add_part(config, schemes, ignore, err);
}
