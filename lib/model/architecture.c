/*
 * architecture.c - the table of model families: one row each
 */
#include "moecal/architecture.h"

#include <stdio.h>
#include <string.h>

#include "arch.h"

static const struct mc_architecture *const rows[] = {
    &mc_arch_mixtral,
    &mc_arch_qwen3_moe,
};
#define ROWS (sizeof rows / sizeof *rows)

const char *const mc_arch_ignored[] = {
    "mtp.", "model.mtp", "vision_", "visual.", "model.visual", "multi_modal_projector", NULL};

const struct mc_architecture *mc_architecture_at(size_t index)
{
	return index < ROWS ? rows[index] : NULL;
}

static const char *text_of(const struct mc_json *value)
{
	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : NULL;
}

const struct mc_architecture *mc_architecture_find(
    const struct mc_json *config, struct mc_error *err)
{
	const char *type = text_of(mc_json_get(config, "model_type"));
	const char *class_name = text_of(mc_json_at(mc_json_get(config, "architectures"), 0));
	char list[256] = "";

	for (size_t i = 0; type != NULL && i < ROWS; i++)
		if (strcmp(rows[i]->model_type, type) == 0)
			return rows[i];
	for (size_t i = 0; class_name != NULL && i < ROWS; i++)
		if (strcmp(rows[i]->classes.causal_lm, class_name) == 0)
			return rows[i];
	for (size_t i = 0; i < ROWS; i++)
		snprintf(list + strlen(list), sizeof list - strlen(list), "%s%s", i > 0 ? ", " : "",
		    rows[i]->model_type);
	(void)mc_fail(err, MC_UNSUPPORTED, "config.json",
	    "model_type '%.60s' (%.60s) is not known; this program knows %s",
	    type != NULL ? type : "", class_name != NULL ? class_name : "no architectures", list);
	return NULL;
}
