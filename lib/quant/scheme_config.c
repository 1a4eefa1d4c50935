/*
 * scheme_config.c - the fields of a QuantizationModifier: what the user asks for, as config groups
 */
#include "scheme_parse.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/match.h"

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The second row is what every modifier may have; this program has no use for it. */
static const char *const keys[] = {"targets", "ignore", "scheme", "config_groups",
    "kv_cache_scheme", "weight_observer", "input_observer", "output_observer", "observer",
    "bypass_divisibility_checks", "index", "group", "start", "end", "update"};
static const char *const observer_keys[] = {"weights", "input", "output"};
static const char *const observer_fields[] = {
    "weight_observer", "input_observer", "output_observer"};

struct parsing {
	struct mc_quant_config *config;
	const struct mc_json *json;
	const char *pointer;
	struct mc_scheme_reader reader;
	struct mc_problems *problems;
	const char *observer[3]; /* of weights, input, output; NULL: not overridden */
};

/* --- groups ----------------------------------------------------------------------------------- */

static bool copy_targets(
    struct mc_scheme *scheme, char *const *targets, size_t count, struct mc_error *err)
{
	scheme->targets = mc_alloc(count, sizeof *scheme->targets, "targets", err);
	if (scheme->targets == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		scheme->targets[i] = mc_strdup(targets[i], err);
		if (scheme->targets[i] == NULL)
			return false;
		scheme->targets_count++;
	}
	return true;
}

/* A group of the preset (NULL: one that quantizes nothing) for the modifier's own targets. */
static bool add_for_targets(struct parsing *p, const char *preset, struct mc_error *err)
{
	struct mc_field field = mc_field_get(p->json, p->pointer, "targets");
	struct mc_scheme *scheme = mc_quant_config_add(p->config, err);
	static const char *linear[] = {"Linear"};

	if (scheme == NULL ||
	    !mc_scheme_make(scheme, "group_0", preset == NULL ? "UNQUANTIZED" : preset, err))
		return false;
	if (field.value == NULL)
		return copy_targets(scheme, (char *const *)linear, 1, err);
	return mc_strings_read(&field, &scheme->targets, &scheme->targets_count, p->problems, err);
}

/* {preset: targets, ...}: group_0, group_1, ... in the order of the file. */
static bool add_scheme_map(struct parsing *p, const struct mc_field *field, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(field->value);
	char name[32];

	if (mc_json_size(field->value) == 0)
		mc_problems_add(
		    p->problems, field->where, "is empty; needed a preset and its targets");
	while (mc_json_next(&member)) {
		struct mc_field targets = {.value = member.value};
		mc_pointer_join(targets.where, field->where, member.key);
		if (!mc_scheme_is_preset(member.key)) {
			mc_preset_unknown(targets.where, member.key, p->problems);
			continue;
		}
		struct mc_scheme *scheme = mc_quant_config_add(p->config, err);
		snprintf(name, sizeof name, "group_%zu", p->config->count - 1);
		if (scheme == NULL || !mc_scheme_make(scheme, name, member.key, err) ||
		    !mc_strings_read(
			&targets, &scheme->targets, &scheme->targets_count, p->problems, err))
			return false;
	}
	return true;
}

static bool read_scheme_field(struct parsing *p, const struct mc_field *field, struct mc_error *err)
{
	if (mc_json_type(field->value) == MC_JSON_OBJECT)
		return add_scheme_map(p, field, err);
	if (mc_json_type(field->value) != MC_JSON_STRING) {
		mc_field_wrong_type(
		    field, "a preset's name or an object {preset: targets}", p->problems);
		return true;
	}
	const char *name = mc_json_string(field->value, NULL);
	if (mc_scheme_is_preset(name))
		return add_for_targets(p, name, err);
	mc_preset_unknown(field->where, name, p->problems);
	return true;
}

static bool read_groups(struct parsing *p, struct mc_error *err)
{
	struct mc_field scheme = mc_field_get(p->json, p->pointer, "scheme");
	struct mc_field groups = mc_field_get(p->json, p->pointer, "config_groups");
	struct mc_field kv = mc_field_get(p->json, p->pointer, "kv_cache_scheme");
	struct mc_field targets = mc_field_get(p->json, p->pointer, "targets");
	bool has_scheme = !mc_json_is_null(scheme.value),
	     has_groups = !mc_json_is_null(groups.value);

	if (has_scheme && has_groups)
		mc_problems_add(
		    p->problems, scheme.where, "scheme and config_groups exclude each other");
	if (has_scheme && !read_scheme_field(p, &scheme, err))
		return false;
	if (has_groups && !mc_config_groups_read(p->config, &groups, &p->reader, err))
		return false;
	if (!has_scheme && !has_groups && mc_json_is_null(kv.value))
		mc_problems_add(
		    p->problems, p->pointer, "needed scheme (such as \"W4A16\") or config_groups");
	/* Without a group of its own the modifier targets modules that stay as they are. */
	if (!has_scheme && !has_groups && !mc_json_is_null(kv.value))
		return add_for_targets(p, NULL, err);
	if (targets.value != NULL && (has_groups || mc_json_type(scheme.value) == MC_JSON_OBJECT)) {
		/* not used then, but still of the right kind */
		char **list = NULL;
		size_t count = 0;
		bool ok = mc_strings_read(&targets, &list, &count, p->problems, err);
		mc_strings_free(list, count);
		return ok;
	}
	return true;
}

/* --- observers -------------------------------------------------------------------------------- */

static void read_observer(struct parsing *p, const struct mc_field *field, size_t which)
{
	if (mc_json_is_null(field->value))
		return;
	if (mc_json_type(field->value) != MC_JSON_STRING)
		mc_field_wrong_type(field, "an observer's name or null", p->problems);
	else if (mc_observer_known(mc_json_string(field->value, NULL)) == NULL)
		mc_observer_unknown(field->where, mc_json_string(field->value, NULL), p->problems);
	else
		p->observer[which] = mc_json_string(field->value, NULL);
}

static void read_observers(struct parsing *p)
{
	struct mc_field map = mc_field_get(p->json, p->pointer, "observer");
	bool any = false;

	for (size_t i = 0; i < 3; i++) {
		struct mc_field field = mc_field_get(p->json, p->pointer, observer_fields[i]);
		any |= !mc_json_is_null(field.value);
		read_observer(p, &field, i);
	}
	if (mc_json_is_null(map.value))
		return;
	if (mc_json_type(map.value) != MC_JSON_OBJECT) {
		mc_field_wrong_type(&map, "an object with weights, input or output", p->problems);
		return;
	}
	if (any)
		mc_problems_add(p->problems, map.where,
		    "observer and weight_observer, input_observer, output_observer exclude each "
		    "other");
	mc_keys_require(map.value, map.where, observer_keys, COUNT(observer_keys), p->problems);
	for (size_t i = 0; i < 3; i++) {
		struct mc_field field = mc_field_get(map.value, map.where, observer_keys[i]);
		read_observer(p, &field, i);
	}
}

static void set_observer(struct mc_quant_args *args, const char *override, const char *missing)
{
	if (override != NULL)
		snprintf(args->observer, sizeof args->observer, "%s", override);
	else if (args->observer[0] == '\0')
		snprintf(args->observer, sizeof args->observer, "%s", missing);
}

/* Written to config.json as given; what weights use is the memoryless form of it. */
static void settle_observers(struct parsing *p)
{
	for (size_t i = 0; i < p->config->count; i++) {
		struct mc_scheme *scheme = &p->config->schemes[i];
		if (scheme->has_weights)
			set_observer(&scheme->weights, p->observer[0], "memoryless_minmax");
		if (scheme->has_input)
			set_observer(&scheme->input, p->observer[1],
			    scheme->input.dynamic == MC_DYNAMIC_YES ? "" : "minmax");
		if (scheme->has_output)
			set_observer(&scheme->output, p->observer[2],
			    scheme->output.dynamic == MC_DYNAMIC_YES ? "" : "minmax");
	}
}

/* --- the whole -------------------------------------------------------------------------------- */

static bool check_patterns(
    struct parsing *p, const struct mc_json *value, const char *pointer, struct mc_error *err)
{
	if (mc_json_type(value) == MC_JSON_STRING) {
		struct mc_error one;
		mc_error_init(&one);
		if (mc_match_check(mc_json_string(value, NULL), &one))
			return true;
		if (one.code == MC_NO_MEMORY)
			return mc_fail(err, MC_NO_MEMORY, one.where, "%s", one.text);
		mc_problems_add(p->problems, pointer, "%s", one.text);
		return true;
	}
	for (size_t i = 0; mc_json_type(value) == MC_JSON_ARRAY && i < mc_json_size(value); i++) {
		char where[160];
		mc_pointer_index(where, pointer, i);
		if (mc_json_type(mc_json_at(value, i)) == MC_JSON_STRING &&
		    !check_patterns(p, mc_json_at(value, i), where, err))
			return false;
	}
	return true;
}

/* Every list of targets that the modifier can have. */
static bool check_all_patterns(struct parsing *p, struct mc_error *err)
{
	static const char *const lists[] = {"targets", "ignore"}, *const maps[] = {
								      "scheme", "config_groups"};

	for (size_t i = 0; i < COUNT(lists); i++) {
		struct mc_field field = mc_field_get(p->json, p->pointer, lists[i]);
		if (field.value != NULL && !check_patterns(p, field.value, field.where, err))
			return false;
	}
	for (size_t i = 0; i < COUNT(maps); i++) {
		struct mc_field field = mc_field_get(p->json, p->pointer, maps[i]);
		struct mc_json_iter member = mc_json_iter(field.value);
		while (mc_json_next(&member)) {
			struct mc_field group = {.value = member.value}, list;
			mc_pointer_join(group.where, field.where, member.key);
			bool scheme = mc_json_type(member.value) == MC_JSON_OBJECT;
			list = scheme ? mc_field_get(member.value, group.where, "targets") : group;
			if (list.value != NULL && !check_patterns(p, list.value, list.where, err))
				return false;
		}
	}
	return true;
}

static bool read_rest(struct parsing *p, struct mc_error *err)
{
	struct mc_field ignore = mc_field_get(p->json, p->pointer, "ignore");
	struct mc_field kv = mc_field_get(p->json, p->pointer, "kv_cache_scheme");
	struct mc_field bypass = mc_field_get(p->json, p->pointer, "bypass_divisibility_checks");

	if (!mc_json_is_null(bypass.value) && mc_json_type(bypass.value) != MC_JSON_BOOL)
		mc_field_wrong_type(&bypass, "true or false", p->problems);
	if (!mc_json_is_null(ignore.value) && !mc_strings_read(&ignore, &p->config->ignore,
						  &p->config->ignore_count, p->problems, err))
		return false;
	p->config->has_kv_cache = !mc_json_is_null(kv.value);
	return !p->config->has_kv_cache ||
	       mc_quant_args_read(&p->config->kv_cache, kv.value, kv.where, &p->reader, err);
}

bool mc_quant_config_parse(struct mc_quant_config *config, const struct mc_json *modifier,
    const char *pointer, struct mc_problems *problems, struct mc_error *err)
{
	struct parsing p = {.config = config,
	    .json = modifier,
	    .pointer = pointer,
	    .problems = problems,
	    .reader = {.problems = problems}};

	mc_quant_config_init(config);
	if (mc_json_type(modifier) != MC_JSON_OBJECT) {
		struct mc_field field = {.value = modifier};
		snprintf(field.where, sizeof field.where, "%s", pointer);
		mc_field_wrong_type(&field, "an object", problems);
		return true;
	}
	mc_keys_require(modifier, pointer, keys, COUNT(keys), problems);
	if (!read_groups(&p, err) || !read_rest(&p, err) || !check_all_patterns(&p, err)) {
		mc_quant_config_release(config);
		return false;
	}
	read_observers(&p);
	settle_observers(&p);
	return true;
}
