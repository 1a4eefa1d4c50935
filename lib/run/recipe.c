/*
 * recipe.c - from the forms that a recipe may have to one QuantizationModifier
 */
#include "moecal/recipe.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#define MAX_MODIFIERS 16

static const char *const known_modifiers[] = {"QuantizationModifier", "GPTQModifier", "AWQModifier",
    "SmoothQuantModifier", "SparseGPTModifier", "WandaPruningModifier", "REAPPruningModifier",
    "AutoRoundModifier", "SpinQuantModifier", "QuIPModifier", "MagnitudePruningModifier",
    "ConstantPruningModifier", "LogarithmicEqualizationModifier"};
#define KNOWN_MODIFIERS (sizeof known_modifiers / sizeof *known_modifiers)

/* Keys beside stages that recipes in the wild carry and that say nothing about the weights. */
static const char *const ignored_keys[] = {"args", "version", "metadata", "run_type"};

struct found {
	const char *class_name; /* borrowed */
	const struct mc_json *fields;
	char pointer[160];
};

struct collector {
	size_t count;
	struct found items[MAX_MODIFIERS];
	struct mc_problems *problems;
};

static bool ends_with(const char *text, const char *ending)
{
	size_t n = strlen(text), m = strlen(ending);
	return n >= m && strcmp(text + n - m, ending) == 0;
}

static bool is_ignored(const char *key)
{
	for (size_t i = 0; i < sizeof ignored_keys / sizeof *ignored_keys; i++)
		if (strcmp(key, ignored_keys[i]) == 0)
			return true;
	return false;
}

static void add_modifier(
    struct collector *c, const char *class_name, const struct mc_json *fields, const char *pointer)
{
	if (c->count == MAX_MODIFIERS) {
		mc_problems_add(c->problems, pointer, "more than %d modifiers", MAX_MODIFIERS);
		return;
	}
	struct found *f = &c->items[c->count++];
	f->class_name = class_name;
	f->fields = fields;
	strcpy(f->pointer, pointer);
}

/* {Class: fields, ...} */
static void collect_group(struct collector *c, const struct mc_json *group, const char *pointer)
{
	if (mc_json_type(group) != MC_JSON_OBJECT) {
		mc_problems_add(
		    c->problems, pointer, "modifiers must be an object of modifier classes");
		return;
	}
	for (size_t i = 0; i < mc_json_size(group); i++) {
		const char *key;
		char child[160];
		const struct mc_json *fields = mc_json_member(group, i, &key);
		add_modifier(c, key, fields, mc_pointer_join(child, pointer, key));
	}
}

static void collect_stage(struct collector *c, const struct mc_json *stage, const char *pointer)
{
	if (mc_json_type(stage) != MC_JSON_OBJECT) {
		mc_problems_add(c->problems, pointer, "a stage must be an object");
		return;
	}
	for (size_t i = 0; i < mc_json_size(stage); i++) {
		const char *key;
		char child[160];
		const struct mc_json *group = mc_json_member(stage, i, &key);
		mc_pointer_join(child, pointer, key);
		if (ends_with(key, "_modifiers"))
			collect_group(c, group, child);
		else if (!is_ignored(key))
			mc_problems_add(c->problems, child,
			    "unknown key '%s' in a stage; modifiers stand under NAME_modifiers",
			    key);
	}
}

static void collect_object(struct collector *c, const struct mc_json *object, const char *pointer)
{
	bool structured = false;

	for (size_t i = 0; i < mc_json_size(object); i++) {
		const char *key;
		mc_json_member(object, i, &key);
		structured = structured || ends_with(key, "_stage") ||
			     ends_with(key, "_modifiers") || ends_with(key, "Modifier");
	}
	if (!structured) { /* the fields alone */
		add_modifier(c, "QuantizationModifier", object, pointer);
		return;
	}
	for (size_t i = 0; i < mc_json_size(object); i++) {
		const char *key;
		char child[160];
		const struct mc_json *value = mc_json_member(object, i, &key);
		mc_pointer_join(child, pointer, key);
		if (ends_with(key, "_stage"))
			collect_stage(c, value, child);
		else if (ends_with(key, "_modifiers"))
			collect_group(c, value, child);
		else if (ends_with(key, "Modifier"))
			add_modifier(c, key, value, child);
		else if (!is_ignored(key))
			mc_problems_add(c->problems, child,
			    "unknown key '%s'; a recipe has stages (NAME_stage) or modifiers", key);
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

/* A new value to be read in place of the text; NULL with a problem added, or with err set. */
static struct mc_json *read_text(const char *text, size_t length, const char *pointer,
    struct mc_problems *problems, struct mc_error *err)
{
	struct mc_error parse;
	struct mc_json *value;

	if (mc_scheme_is_preset(text))
		return preset_fields(text, err);
	if (strpbrk(text, ":\n{") == NULL) {
		mc_problems_add(problems, pointer,
		    "'%.80s' is not a preset and not a recipe; presets are W4A16, W8A16, "
		    "W4A16_ASYM, W8A8, FP8, FP8_DYNAMIC ...",
		    text);
		return NULL;
	}
	mc_error_init(&parse);
	value = mc_yaml_parse(text, length, "recipe", &parse);
	if (value != NULL && mc_json_type(value) == MC_JSON_OBJECT)
		return value;
	if (value == NULL && parse.code == MC_NO_MEMORY)
		(void)mc_fail(err, parse.code, parse.where, "%s", parse.text);
	else
		mc_problems_add(problems, pointer, "%s",
		    value == NULL ? parse.text : "a recipe must be an object");
	mc_json_free(value);
	return NULL;
}

static void collect_value(
    struct collector *c, const struct mc_json *value, const char *pointer, unsigned depth)
{
	switch (mc_json_type(value)) {
	case MC_JSON_OBJECT:
		collect_object(c, value, pointer);
		return;
	case MC_JSON_ARRAY:
		for (size_t i = 0; i < mc_json_size(value); i++) {
			char child[160];
			mc_pointer_index(child, pointer, i);
			if (depth < 4)
				collect_value(c, mc_json_at(value, i), child, depth + 1);
			else
				mc_problems_add(c->problems, child, "lists are nested too deeply");
		}
		return;
	case MC_JSON_NULL:
	case MC_JSON_BOOL:
	case MC_JSON_INTEGER:
	case MC_JSON_REAL:
	case MC_JSON_STRING:
		break;
	}
	mc_problems_add(c->problems, pointer, "a modifier must be an object, not a %s",
	    mc_json_type_name(mc_json_type(value)));
}

/* --- the one modifier
 * ------------------------------------------------------------------------------ */

static void require_one(struct collector *c, const char *pointer)
{
	for (size_t i = 0; i < c->count; i++) {
		const char *name = c->items[i].class_name;
		bool known = false;
		for (size_t k = 0; k < KNOWN_MODIFIERS; k++)
			known = known || strcmp(name, known_modifiers[k]) == 0;
		if (strcmp(name, "QuantizationModifier") == 0)
			continue;
		const char *near = known ? NULL
					 : mc_nearest(name, known_modifiers, KNOWN_MODIFIERS);
		if (known)
			mc_problems_add(c->problems, c->items[i].pointer,
			    "%s is not there yet; this version has QuantizationModifier", name);
		else
			mc_problems_add(c->problems, c->items[i].pointer,
			    "unknown modifier '%s'%s%s", name,
			    near != NULL ? "; did you mean " : "; this version has ",
			    near != NULL ? near : "QuantizationModifier");
	}
	if (c->count == 0 && c->problems->total == 0)
		mc_problems_add(c->problems, pointer, "the recipe has no modifier");
	if (c->count > 1)
		mc_problems_add(c->problems, c->items[1].pointer,
		    "%zu modifiers; this version does one QuantizationModifier a job", c->count);
}

static const char *modifier_name(const struct mc_json *fields)
{
	const struct mc_json *scheme = mc_json_get(fields, "scheme");
	return scheme != NULL && mc_json_type(scheme) == MC_JSON_STRING
		   ? mc_json_string(scheme, NULL)
		   : "QuantizationModifier";
}

static bool take(struct mc_recipe *recipe, const struct found *found, struct mc_problems *problems,
    struct mc_error *err)
{
	if (mc_json_type(found->fields) != MC_JSON_OBJECT) {
		mc_problems_add(
		    problems, found->pointer, "the fields of a modifier must be an object");
		return true;
	}
	if (!mc_quant_config_parse(&recipe->config, found->fields, found->pointer, problems, err))
		return false;
	recipe->json = mc_json_new_object();
	recipe->name = mc_strdup(modifier_name(found->fields), err);
	return recipe->name != NULL && mc_json_set(recipe->json, "QuantizationModifier",
					   mc_json_copy(found->fields, err), err);
}

bool mc_recipe_parse(struct mc_recipe *recipe, const struct mc_json *value, const char *pointer,
    struct mc_problems *problems, struct mc_error *err)
{
	struct collector collector = {.problems = problems};
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
	require_one(&collector, pointer);
	bool ok = problems->total != before || take(recipe, &collector.items[0], problems, err);
	mc_json_free(read);
	return ok;
}

void mc_recipe_release(struct mc_recipe *recipe)
{
	mc_quant_config_release(&recipe->config);
	mc_json_free(recipe->json);
	free(recipe->name);
	*recipe = (struct mc_recipe){0};
}
