/*
 * recipe_yaml.h - what reading and writing YAML share
 */
#ifndef MC_RUN_RECIPE_YAML_H
#define MC_RUN_RECIPE_YAML_H

#include "moecal/recipe.h"

/* What a text without quotes is read as. New, owned; NULL when out of memory. */
struct mc_json *mc_yaml_plain(const char *text);

#endif
