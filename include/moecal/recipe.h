/*
 * recipe.h - what the user asks to be done to the weights
 *
 * Forms: a preset name ("W4A16"); one modifier object ({"QuantizationModifier": {...}}, or its
 * fields alone); a list of them; a whole llm-compressor recipe as YAML or JSON text or as an object
 * with stages (NAME_stage / NAME_modifiers). What is not there yet is refused by name.
 */
#ifndef MC_RECIPE_H
#define MC_RECIPE_H

#include "moecal/problems.h"
#include "moecal/scheme.h"

struct mc_recipe {
	struct mc_quant_config config; /* of the one QuantizationModifier */
	struct mc_json *json; /* the recipe as an object {"QuantizationModifier": {...}}; owned */
	char *name;           /* for people: preset name or modifier class; owned */
};

/* `value` is the spec's recipe (string, object or array) at JSON pointer `pointer`. A preset name
 * alone means targets ["Linear"], ignore ["lm_head"]. Returns false only when out of memory. */
bool mc_recipe_parse(struct mc_recipe *recipe, const struct mc_json *value, const char *pointer,
    struct mc_problems *problems, struct mc_error *err) MC_CHECKED;
void mc_recipe_release(struct mc_recipe *recipe);

/* YAML (1.1 core types as PyYAML's safe loader reads them) to JSON; also reads JSON text. Limits: 1
 * MiB, depth 64, no aliases that expand. Errors: INVALID with line and column. New, owned. */
struct mc_json *mc_yaml_parse(
    const char *text, size_t length, const char *where, struct mc_error *err) MC_CHECKED;

#endif
