/*
 * recipe.h - what the user asks to be done to the weights
 *
 * Forms: a preset name ("W4A16"); one modifier object ({"QuantizationModifier": {...}}, or its
 * fields alone); a list of them; a whole llm-compressor recipe as YAML or JSON text or as an object
 * with stages (NAME_stage / NAME_modifiers). Modifiers apply in order: what a later one says of a
 * module replaces what an earlier one said. What is not there yet is refused by name.
 */
#ifndef MC_RECIPE_H
#define MC_RECIPE_H

#include "moecal/buf.h"
#include "moecal/problems.h"
#include "moecal/scheme.h"

struct mc_recipe {
	struct mc_quant_config config; /* of all QuantizationModifiers, in order */
	/* {"QuantizationModifier": {...}}, or a list of such objects; reading it again gives the same
	 * recipe. A group that the recipe named is a field of the modifier. Owned. */
	struct mc_json *json;
	char *name;    /* for people: preset names or modifier classes; owned */
	char *stage;   /* of the last stage, NULL when there was none; owned */
	char **passed; /* keys that say nothing and were passed over, with their stage; owned */
	size_t passed_count;
};

/* `value` is the spec's recipe (string, object or array) at JSON pointer `pointer`. A preset name
 * alone means targets ["Linear"], ignore ["lm_head"]. Returns false only when out of memory. */
bool mc_recipe_parse(struct mc_recipe *recipe, const struct mc_json *value, const char *pointer,
    struct mc_problems *problems, struct mc_error *err) MC_CHECKED;
void mc_recipe_release(struct mc_recipe *recipe);

/*
 * The recipe as a file with stages: {STAGE_stage: {GROUP_modifiers: {CLASS: fields}}}, "default" where
 * there is no name; null fields, `group` and names that end in _ are left out. `before` is such a file
 * that lay with the model, or NULL: its stages are kept, and stages of one name get numbers. New, owned.
 */
struct mc_json *mc_recipe_file(
    const struct mc_recipe *recipe, const struct mc_json *before, struct mc_error *err) MC_CHECKED;

/* YAML (1.1 core types as PyYAML's safe loader reads them, anchors and merge keys included) to JSON;
 * also reads JSON text. Limits: 1 MiB, depth 64, 65536 values made by aliases. The tags that the
 * reference writes around names of its own are taken off, others are refused. Errors: INVALID or
 * UNSUPPORTED with line and column. New, owned. */
struct mc_json *mc_yaml_parse(
    const char *text, size_t length, const char *where, struct mc_error *err) MC_CHECKED;
/* An object or list as YAML in the style of recipe.yaml: block style, leaves in flow style. */
bool mc_yaml_write(
    const struct mc_json *value, struct mc_buf *out, struct mc_error *err) MC_CHECKED;

#endif
