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

static const char *const keys[] = {"targets", "ignore", "scheme", "config_groups",
    "kv_cache_scheme", "weight_observer", "input_observer", "output_observer", "observer",
    "bypass_divisibility_checks", "requires_calibration_data", "index", "group", "start", "end",
    "update", "initialized_", "finalized_", "started_", "ended_"};

/* What every modifier may have and a written recipe does have; this program has no use for it. */
enum common { COMMON_BOOL, COMMON_INTEGER, COMMON_NUMBER, COMMON_TEXT };
static const struct {
	const char *key;
	enum common kind;
} common[] = {
    {"bypass_divisibility_checks", COMMON_BOOL},
    {"requires_calibration_data", COMMON_BOOL},
    {"index", COMMON_INTEGER},
    {"group", COMMON_TEXT},
    {"start", COMMON_NUMBER},
    {"end", COMMON_NUMBER},
    {"update", COMMON_NUMBER},
    {"initialized_", COMMON_BOOL},
    {"finalized_", COMMON_BOOL},
    {"started_", COMMON_BOOL},
    {"ended_", COMMON_BOOL},
};
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
	return mc_strings_read(
	    &field, true, &scheme->targets, &scheme->targets_count, p->problems, err);
}

/* {preset: targets, ...}: group_0, group_1, ... in the order of the file. */
static bool add_scheme_map(struct parsing *p, const struct mc_field *field, struct mc_error *err)
{
	struct mc_json_iter member = mc_json_iter(field->value);
	char name[32];

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
			&targets, true, &scheme->targets, &scheme->targets_count, p->problems, err))
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

/* Whether the modifier says anything at all. */
static bool says_something(const struct parsing *p)
{
	static const char *const any[] = {"scheme", "config_groups", "kv_cache_scheme"};
	const struct mc_json *targets = mc_json_get(p->json, "targets"),
			     *ignore = mc_json_get(p->json, "ignore"), *first = targets;

	for (size_t i = 0; i < COUNT(any); i++)
		if (!mc_json_is_null(mc_json_get(p->json, any[i])))
			return true;
	if (targets != NULL && mc_json_type(targets) == MC_JSON_ARRAY)
		first = mc_json_size(targets) == 1 ? mc_json_at(targets, 0) : NULL;
	if (targets != NULL && (first == NULL || mc_json_type(first) != MC_JSON_STRING ||
				   strcmp(mc_json_string(first, NULL), "Linear") != 0))
		return true;
	return ignore != NULL && mc_json_size(ignore) > 0;
}

static bool read_groups(struct parsing *p, struct mc_error *err)
{
	struct mc_field scheme = mc_field_get(p->json, p->pointer, "scheme");
	struct mc_field groups = mc_field_get(p->json, p->pointer, "config_groups");
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
	if (!says_something(p)) {
		mc_problems_add(
		    p->problems, p->pointer, "needed scheme (such as \"W4A16\") or config_groups");
		return true;
	}
	/* Without a group of its own the modifier targets modules that stay as they are. */
	bool empty = (!has_scheme || (mc_json_type(scheme.value) == MC_JSON_OBJECT &&
					 mc_json_size(scheme.value) == 0)) &&
		     (!has_groups || (mc_json_type(groups.value) == MC_JSON_OBJECT &&
					 mc_json_size(groups.value) == 0));
	if (empty)
		return add_for_targets(p, NULL, err);
	if (targets.value != NULL && (has_groups || mc_json_type(scheme.value) == MC_JSON_OBJECT)) {
		/* not used then, but still of the right kind */
		char **list = NULL;
		size_t count = 0;
		bool ok = mc_strings_read(&targets, true, &list, &count, p->problems, err);
		mc_strings_free(list, count);
		return ok;
	}
	return true;
}

/* --- observers -------------------------------------------------------------------------------- */

static void read_observer(
    struct parsing *p, const struct mc_field *field, const char *needed, size_t which)
{
	if (mc_json_type(field->value) != MC_JSON_STRING)
		mc_field_wrong_type(field, needed, p->problems);
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
		if (mc_json_is_null(field.value))
			continue;
		any = true;
		read_observer(p, &field, "an observer's name or null", i);
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
		if (field.value != NULL)
			read_observer(p, &field, "an observer's name", i);
	}
}

/* What is dynamic has no observer unless one is asked for. */
static void set_observer(struct mc_quant_args *args, const char *override, const char *missing)
{
	if (override != NULL)
		snprintf(args->observer, sizeof args->observer, "%s", override);
	else if (args->observer[0] == '\0' && args->dynamic != MC_DYNAMIC_YES)
		snprintf(args->observer, sizeof args->observer, "%s", missing);
}

/* Arguments that the observer has no use for; only a group that was spelled out can have any. */
static void check_use(const struct parsing *p, const struct mc_scheme *scheme, const char *key,
    const struct mc_quant_args *args)
{
	struct mc_field field = mc_field_get(p->json, p->pointer, "config_groups");
	char where[160];

	mc_pointer_join(where, field.where, scheme->name);
	mc_pointer_join(where, where, key);
	field = mc_field_get(
	    mc_json_get(mc_json_get(field.value, scheme->name), key), where, "observer_kwargs");
	if (field.value != NULL && args->dynamic != MC_DYNAMIC_YES)
		mc_observer_check_use(&field, args->observer, p->problems);
}

/* Written to config.json as given; what weights use is the memoryless form of it. */
static void settle_observers(struct parsing *p, size_t problems_before)
{
	static const char *const missing[] = {"memoryless_minmax", "minmax", "minmax"};
	static const char *const args_keys[] = {
	    "weights", "input_activations", "output_activations"};
	struct mc_field kv = mc_field_get(p->json, p->pointer, "kv_cache_scheme");

	for (size_t i = 0; i < p->config->count; i++) {
		struct mc_scheme *scheme = &p->config->schemes[i];
		struct mc_quant_args *args[] = {
		    scheme->has_weights ? &scheme->weights : NULL,
		    scheme->has_input ? &scheme->input : NULL,
		    scheme->has_output ? &scheme->output : NULL,
		};
		for (size_t k = 0; k < COUNT(args); k++) {
			if (args[k] == NULL)
				continue;
			set_observer(args[k], p->observer[k], missing[k]);
			if (p->problems->total == problems_before)
				check_use(p, scheme, args_keys[k], args[k]);
		}
	}
	/* that of the cache stays null: minmax is used then */
	if (p->config->has_kv_cache && p->problems->total == problems_before) {
		const struct mc_quant_args *args = &p->config->kv_cache;
		struct mc_field kwargs = mc_field_get(kv.value, kv.where, "observer_kwargs");
		if (kwargs.value != NULL && args->dynamic != MC_DYNAMIC_YES)
			mc_observer_check_use(&kwargs,
			    args->observer[0] == '\0' ? "minmax" : args->observer, p->problems);
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

static void check_common(struct parsing *p)
{
	static const char *const needed[] = {[COMMON_BOOL] = "true or false",
	    [COMMON_INTEGER] = "an integer or null",
	    [COMMON_NUMBER] = "a number or null",
	    [COMMON_TEXT] = "a string or null"};
	int64_t integer;
	bool flag;

	for (size_t i = 0; i < COUNT(common); i++) {
		struct mc_field field = mc_field_get(p->json, p->pointer, common[i].key);
		bool null = mc_json_is_null(field.value), ok = null;
		if (field.value == NULL)
			continue;
		switch (common[i].kind) {
		case COMMON_BOOL:
			ok = mc_bool_read(field.value, &flag);
			break;
		case COMMON_INTEGER:
			ok = null || mc_integer_read(field.value, &integer);
			break;
		case COMMON_NUMBER:
			ok = null || mc_number_read(field.value);
			break;
		case COMMON_TEXT:
			ok = null || mc_json_type(field.value) == MC_JSON_STRING;
			break;
		}
		if (!ok)
			mc_field_wrong_type(&field, needed[common[i].kind], p->problems);
	}
}

static bool read_rest(struct parsing *p, struct mc_error *err)
{
	struct mc_field ignore = mc_field_get(p->json, p->pointer, "ignore");
	struct mc_field kv = mc_field_get(p->json, p->pointer, "kv_cache_scheme");

	if (ignore.value != NULL && !mc_strings_read(&ignore, false, &p->config->ignore,
					&p->config->ignore_count, p->problems, err))
		return false;
	p->config->has_kv_cache = !mc_json_is_null(kv.value);
	if (!p->config->has_kv_cache)
		return true;
	if (!mc_quant_args_read(&p->config->kv_cache, kv.value, kv.where, &p->reader, err))
		return false;
	mc_activation_check(&p->config->kv_cache, MC_ACTIVATION_KV, kv.where, p->problems);
	return true;
}

bool mc_quant_config_parse(struct mc_quant_config *config, const struct mc_json *modifier,
    const char *pointer, struct mc_problems *problems, struct mc_error *err)
{
	struct parsing p = {.config = config,
	    .json = modifier,
	    .pointer = pointer,
	    .problems = problems,
	    .reader = {.problems = problems}};
	size_t before = problems->total;

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
	check_common(&p);
	read_observers(&p);
	settle_observers(&p, before);
	return true;
}
