/*
 * config_dtype.c - see config_dtype.h
 */
#include "config_dtype.h"

#include <string.h>

static const char *text_of(const struct mc_json *object, const char *key)
{
	const struct mc_json *value = mc_json_get(object, key);

	return value != NULL && mc_json_type(value) == MC_JSON_STRING ? mc_json_string(value, NULL)
								      : NULL;
}

enum mc_dtype mc_config_dtype(const struct mc_json *config)
{
	static const struct {
		const char *name;
		enum mc_dtype dtype;
	} names[] = {{"float32", MC_F32}, {"float16", MC_F16}, {"bfloat16", MC_BF16}};
	const struct mc_json *places[] = {config, mc_json_get(config, "text_config")};

	for (size_t p = 0; p < 2; p++) {
		const char *text = text_of(places[p], "dtype");
		if (text == NULL)
			text = text_of(places[p], "torch_dtype");
		if (text != NULL && strncmp(text, "torch.", 6) == 0)
			text += 6;
		for (size_t i = 0; text != NULL && i < sizeof names / sizeof *names; i++)
			if (strcmp(text, names[i].name) == 0)
				return names[i].dtype;
	}
	return MC_BF16;
}
