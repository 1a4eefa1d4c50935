/*
 * recipe.c - from the forms that a recipe may have to its modifiers
 */
#include "moecal/recipe.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#define MAX_MODIFIERS 16

/* What this version has, then what llm-compressor has besides. */
static const char *const known_modifiers[] = {"QuantizationModifier", "GPTQModifier", "AWQModifier",
    "SmoothQuantModifier", "SparseGPTModifier", "WandaPruningModifier", "REAPPruningModifier",
    "AutoRoundModifier", "SpinQuantModifier", "QuIPModifier", "MagnitudePruningModifier",
    "ConstantPruningModifier", "LogarithmicEqualizationModifier"};
#define KNOWN_MODIFIERS (sizeof known_modifiers / sizeof *known_modifiers)
#define PRESENT_MODIFIERS ((size_t)1)

/* Keys that recipes in the wild carry and that say nothing about the weights: no word about them.
 */
static const char *const silent_keys[] = {"args", "version", "metadata", "run_type"};

struct found {
	const char *class_name; /* borrowed */
	const struct mc_json *fields;
	char pointer[160];
	char group[64]; /* "" when the recipe names none */
};

struct collector {
	struct mc_recipe *recipe;
	size_t count;
	struct found items[MAX_MODIFIERS];
	struct mc_problems *problems;
	struct mc_error *err;
	bool out_of_memory;
};

static bool ends_with(const char *text, const char *ending)
{
	size_t n = strlen(text), m = strlen(ending);
	return n >= m && strcmp(text + n - m, ending) == 0;
}

static bool is_object(const struct mc_json *value)
{
	return value != NULL && mc_json_type(value) == MC_JSON_OBJECT;
}

static bool is_silent(const char *key)
{
	for (size_t i = 0; i < sizeof silent_keys / sizeof *silent_keys; i++)
		if (strcmp(key, silent_keys[i]) == 0)
			return true;
	return false;
}

/* Whether a modifier stands in there, however deep: then its place must have a right name. */
static bool holds_modifiers(const struct mc_json *value, unsigned depth)
{
	struct mc_json_iter member = mc_json_iter(value);

	while (depth < 8 && mc_json_next(&member))
		if (ends_with(member.key, "Modifier") || holds_modifiers(member.value, depth + 1))
			return true;
	return false;
}

/* "default_stage_0": how a stage is called when a recipe was added to another one. */
static bool is_numbered_stage(const char *key)
{
	const char *last = strrchr(key, '_');
	size_t stem = last == NULL ? 0 : (size_t)(last - key);

	return stem > 6 && isdigit((unsigned char)last[1]) && strncmp(last - 6, "_stage", 6) == 0;
}

/* The reference passes over keys that are not of its shapes. So do we, and say so; but a modifier
 * that would be lost that way is an error. */
static void pass_over(struct collector *c, const char *key, const struct mc_json *value,
    const char *pointer, const char *shape)
{
	struct mc_recipe *recipe = c->recipe;

	if (is_numbered_stage(key)) {
		mc_problems_add(c->problems, pointer,
		    "'%.64s' is a stage of a recipe that was added to another one, which is "
		    "not run again; rename it to '%.*s' to run it",
		    key, (int)(strrchr(key, '_') - key), key);
		return;
	}
	if (holds_modifiers(value, 0)) {
		mc_problems_add(c->problems, pointer,
		    "'%.64s' holds modifiers, which stand under %s; they would be passed over", key,
		    shape);
		return;
	}
	if (is_silent(key))
		return;
	char **grown = reallocarray(recipe->passed, recipe->passed_count + 1, sizeof *grown);
	char *copy = grown == NULL ? NULL : mc_strdup(pointer, c->err);
	recipe->passed = grown == NULL ? recipe->passed : grown;
	if (copy == NULL)
		c->out_of_memory = true;
	else
		grown[recipe->passed_count++] = copy;
}

/* --- from the forms to a list of modifiers ------------------------------------------------------
 */

static void add_modifier(struct collector *c, const char *class_name, const struct mc_json *fields,
    const char *group, const char *pointer)
{
	if (c->count == MAX_MODIFIERS) {
		mc_problems_add(c->problems, pointer, "more than %d modifiers", MAX_MODIFIERS);
		return;
	}
	struct found *f = &c->items[c->count++];
	f->class_name = class_name;
	f->fields = fields;
	snprintf(f->group, sizeof f->group, "%s", group);
	snprintf(f->pointer, sizeof f->pointer, "%s", pointer);
}

/* NAME_modifiers: {Class: fields, ...} */
static void collect_group(
    struct collector *c, const char *key, const struct mc_json *group, const char *pointer)
{
	struct mc_json_iter member = mc_json_iter(group);
	char name[64], child[160];

	snprintf(name, sizeof name, "%.*s", (int)(strlen(key) - strlen("_modifiers")), key);
	while (mc_json_next(&member))
		add_modifier(c, member.key, member.value, strcmp(name, "default") == 0 ? "" : name,
		    mc_pointer_join(child, pointer, member.key));
}

static void name_stage(struct collector *c, const char *key)
{
	char *copy = mc_format(c->err, "%.*s", (int)(strlen(key) - strlen("_stage")), key);

	c->out_of_memory |= copy == NULL;
	free(c->recipe->stage);
	c->recipe->stage = copy;
}

static void collect_stage(
    struct collector *c, const char *key, const struct mc_json *stage, const char *pointer)
{
	struct mc_json_iter member = mc_json_iter(stage);
	char child[160];

	name_stage(c, key);
	while (mc_json_next(&member)) {
		mc_pointer_join(child, pointer, member.key);
		if (ends_with(member.key, "_modifiers") && is_object(member.value))
			collect_group(c, member.key, member.value, child);
		else
			pass_over(c, member.key, member.value, child, "NAME_modifiers");
	}
}

/* Whether the object is a recipe, or a modifier by name, and not the fields of one. */
static bool is_structured(const struct mc_json *object)
{
	struct mc_json_iter member = mc_json_iter(object);

	while (mc_json_next(&member))
		if (ends_with(member.key, "_stage") || ends_with(member.key, "_modifiers") ||
		    ends_with(member.key, "Modifier") || is_numbered_stage(member.key) ||
		    holds_modifiers(member.value, 0))
			return true;
	return false;
}

static void collect_object(struct collector *c, const struct mc_json *object, const char *pointer)
{
	struct mc_json_iter member = mc_json_iter(object);
	const struct mc_json *args = mc_json_get(object, "args");
	char child[160];

	if (!is_structured(object)) { /* the fields alone */
		add_modifier(c, known_modifiers[0], object, "", pointer);
		return;
	}
	if (args != NULL && !is_object(args))
		mc_problems_add(c->problems, mc_pointer_join(child, pointer, "args"),
		    "is %s; needed an object", mc_json_type_name(mc_json_type(args)));
	while (mc_json_next(&member)) {
		mc_pointer_join(child, pointer, member.key);
		if (ends_with(member.key, "_stage") && is_object(member.value))
			collect_stage(c, member.key, member.value, child);
		else if (ends_with(member.key, "_modifiers") && is_object(member.value))
			collect_group(c, member.key, member.value, child);
		else if (ends_with(member.key, "Modifier"))
			add_modifier(c, member.key, member.value, "", child);
		else
			pass_over(
			    c, member.key, member.value, child, "NAME_stage and NAME_modifiers");
	}
}

static void collect_value(
    struct collector *c, const struct mc_json *value, const char *pointer, unsigned depth)
{
	char child[160];

	if (is_object(value)) {
		collect_object(c, value, pointer);
		return;
	}
	if (mc_json_type(value) != MC_JSON_ARRAY) {
		mc_problems_add(c->problems, pointer, "a modifier must be an object, not a %s",
		    mc_json_type_name(mc_json_type(value)));
		return;
	}
	for (size_t i = 0; i < mc_json_size(value); i++) {
		mc_pointer_index(child, pointer, i);
		if (depth < 4)
			collect_value(c, mc_json_at(value, i), child, depth + 1);
		else
			mc_problems_add(c->problems, child, "lists are nested too deeply");
	}
}

/* --- preset and text forms become objects --------------------------------------------------------
 */

static struct mc_json *preset_fields(const char *name, struct mc_error *err)
{
	struct mc_json *fields = mc_json_new_object(), *targets = mc_json_new_array(),
		       *ignore = mc_json_new_array();
	bool ok = mc_json_set(fields, "targets", targets, err) &&
		  mc_json_set(fields, "ignore", ignore, err) &&
		  mc_json_append(targets, mc_json_new_string("Linear"), err) &&
		  mc_json_append(ignore, mc_json_new_string("lm_head"), err) &&
		  mc_json_set(fields, "scheme", mc_json_new_string(name), err);
	if (ok)
		return fields;
	mc_json_free(fields);
	return NULL;
}

/* A recipe card: the recipe stands between two lines of --- (or +++) before a text for people. A
 * document that only begins with --- is no card. */
static const char *front_matter(const char *text, size_t *length)
{
	const char *start = text + strspn(text, " \t\r\n");
	char fence[5] = {'\n', start[0], start[0], start[0], '\0'};

	if (strncmp(start, "---", 3) != 0 && strncmp(start, "+++", 3) != 0)
		return text;
	const char *end = strstr(start + 3, fence);
	if (end == NULL)
		return text;
	*length = (size_t)(end - start) - 3;
	return start + 3;
}

static struct mc_json *not_a_recipe(
    const char *text, const char *pointer, struct mc_problems *problems)
{
	struct mc_quant_config config;
	struct mc_error why;

	mc_error_init(&why);
	if (mc_quant_config_preset(&config, text, NULL, 0, &why))
		mc_quant_config_release(&config);
	mc_problems_add(
	    problems, pointer, "'%.80s' is not a preset and not a recipe: %s", text, why.text);
	return NULL;
}

/* A new value to be read in place of the text; NULL with a problem added, or with err set. */
static struct mc_json *read_text(const char *text, size_t length, const char *pointer,
    struct mc_problems *problems, struct mc_error *err)
{
	struct mc_error parse;
	struct mc_json *value;

	if (mc_scheme_is_preset(text))
		return preset_fields(text, err);
	if (strpbrk(text, ":\n{[") == NULL)
		return not_a_recipe(text, pointer, problems);
	mc_error_init(&parse);
	text = front_matter(text, &length);
	value = mc_yaml_parse(text, length, "recipe", &parse);
	if (value != NULL && (is_object(value) || mc_json_type(value) == MC_JSON_ARRAY))
		return value;
	if (value == NULL && parse.code == MC_NO_MEMORY)
		(void)mc_fail(err, parse.code, parse.where, "%s", parse.text);
	else
		mc_problems_add(problems, pointer, "%s",
		    value == NULL ? parse.text : "a recipe must be an object or a list");
	mc_json_free(value);
	return NULL;
}

/* --- the modifiers become one config -------------------------------------------------------------
 */

static void refuse_modifier(struct collector *c, const struct found *found)
{
	const char *name = found->class_name;
	char have[200] = "";
	bool known = false;

	for (size_t i = 0; i < PRESENT_MODIFIERS; i++)
		snprintf(have + strlen(have), sizeof have - strlen(have), "%s%s", i > 0 ? ", " : "",
		    known_modifiers[i]);
	for (size_t i = 0; i < KNOWN_MODIFIERS; i++)
		known = known || strcmp(name, known_modifiers[i]) == 0;
	const char *near = known ? NULL : mc_nearest(name, known_modifiers, KNOWN_MODIFIERS);
	if (known)
		mc_problems_add(c->problems, found->pointer,
		    "%s is not there yet; this version has %s", name, have);
	else if (near != NULL)
		mc_problems_add(c->problems, found->pointer,
		    "unknown modifier '%.64s'; did you mean %s? This version has %s", name, near,
		    have);
	else
		mc_problems_add(c->problems, found->pointer,
		    "unknown modifier '%.64s'; this version has %s", name, have);
}

static void require_known(struct collector *c, const char *pointer)
{
	for (size_t i = 0; i < c->count; i++) {
		bool present = false;
		for (size_t k = 0; k < PRESENT_MODIFIERS; k++)
			present |= strcmp(c->items[i].class_name, known_modifiers[k]) == 0;
		if (!present)
			refuse_modifier(c, &c->items[i]);
		else if (!is_object(c->items[i].fields))
			mc_problems_add(c->problems, c->items[i].pointer,
			    "the fields of a modifier must be an object");
	}
	if (c->count == 0 && c->problems->total == 0)
		mc_problems_add(c->problems, pointer, "the recipe has no modifier");
}

/* "W4A16", "W4A16+W8A8" */
static bool add_name(struct mc_recipe *recipe, const struct found *found, struct mc_error *err)
{
	const struct mc_json *scheme = mc_json_get(found->fields, "scheme");
	bool text = scheme != NULL && mc_json_type(scheme) == MC_JSON_STRING;
	char *before = recipe->name;

	recipe->name = mc_format(err, "%s%s%s", before == NULL ? "" : before,
	    before == NULL ? "" : "+", text ? mc_json_string(scheme, NULL) : found->class_name);
	free(before);
	return recipe->name != NULL;
}

/* {Class: fields}, with the group as a field when the recipe gave it one. */
static struct mc_json *modifier_json(const struct found *found, struct mc_error *err)
{
	struct mc_json *object = mc_json_new_object(), *fields = mc_json_copy(found->fields, err);
	bool ok = fields != NULL && object != NULL;

	if (ok && found->group[0] != '\0' && mc_json_get(fields, "group") == NULL)
		ok = mc_json_set(fields, "group", mc_json_new_string(found->group), err);
	if (!ok) {
		mc_json_free(fields);
		mc_json_free(object);
		(void)mc_fail(err, MC_NO_MEMORY, "recipe", "no memory for the recipe");
		return NULL;
	}
	if (mc_json_set(object, found->class_name, fields, err))
		return object;
	mc_json_free(object);
	return NULL;
}

static bool take(struct mc_recipe *recipe, const struct found *found, bool first,
    struct mc_json *list, struct mc_problems *problems, struct mc_error *err)
{
	struct mc_quant_config next;
	struct mc_quant_config *config = first ? &recipe->config : &next;

	if (!mc_quant_config_parse(config, found->fields, found->pointer, problems, err))
		return false;
	if (!first && problems->total == 0 &&
	    !mc_quant_config_append(&recipe->config, &next, err)) {
		mc_quant_config_release(&next);
		return false;
	}
	if (!first && problems->total > 0)
		mc_quant_config_release(&next);
	return add_name(recipe, found, err) && mc_json_append(list, modifier_json(found, err), err);
}

static bool take_all(struct collector *c)
{
	struct mc_json *list = mc_json_new_array();
	bool ok = list != NULL;

	for (size_t i = 0; ok && i < c->count; i++)
		ok = take(c->recipe, &c->items[i], i == 0, list, c->problems, c->err);
	if (ok && c->count == 1) {
		c->recipe->json = mc_json_copy(mc_json_at(list, 0), c->err);
		ok = c->recipe->json != NULL;
	} else if (ok) {
		c->recipe->json = list;
		list = NULL;
	}
	mc_json_free(list);
	return ok || mc_fail(c->err, MC_NO_MEMORY, "recipe", "no memory for the recipe");
}

bool mc_recipe_parse(struct mc_recipe *recipe, const struct mc_json *value, const char *pointer,
    struct mc_problems *problems, struct mc_error *err)
{
	struct collector collector = {.recipe = recipe, .problems = problems, .err = err};
	struct mc_json *read = NULL;
	size_t before = problems->total;

	*recipe = (struct mc_recipe){0};
	mc_quant_config_init(&recipe->config);
	if (mc_json_type(value) == MC_JSON_ARRAY && mc_json_size(value) == 1 &&
	    mc_json_type(mc_json_at(value, 0)) == MC_JSON_STRING)
		value = mc_json_at(value, 0);
	if (mc_json_type(value) == MC_JSON_STRING) {
		size_t length;
		const char *text = mc_json_string(value, &length);
		read = read_text(text, length, pointer, problems, err);
		if (read == NULL)
			return err->code == MC_OK;
		value = read;
	}
	collect_value(&collector, value, pointer, 0);
	require_known(&collector, pointer);
	bool ok = !collector.out_of_memory && (problems->total != before || take_all(&collector));
	mc_json_free(read);
	return ok;
}

void mc_recipe_release(struct mc_recipe *recipe)
{
	mc_quant_config_release(&recipe->config);
	mc_json_free(recipe->json);
	for (size_t i = 0; i < recipe->passed_count; i++)
		free(recipe->passed[i]);
	free(recipe->passed);
	free(recipe->stage);
	free(recipe->name);
	*recipe = (struct mc_recipe){0};
}
