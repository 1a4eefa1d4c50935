/*
 * fuzz_spec.c - any bytes as a job spec: YAML or JSON in, problems or a canonical form out, never a
 * crash
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "moecal/spec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct mc_error err;
	struct mc_problems problems;
	struct mc_spec spec;
	char *text = malloc(size + 1);

	if (text == NULL)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	mc_error_init(&err);
	struct mc_json *json = mc_yaml_parse(text, size, "fuzz", &err);
	if (json != NULL) {
		mc_problems_init(&problems);
		if (mc_spec_parse(&spec, json, &problems, &err) && problems.total == 0) {
			struct mc_json *canonical = mc_spec_json(&spec, &err);
			mc_assert(canonical != NULL);
			mc_json_free(canonical);
		}
		mc_spec_release(&spec);
		mc_problems_release(&problems);
	}
	mc_json_free(json);
	free(text);
	return 0;
}
