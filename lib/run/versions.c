/*
 * versions.c - see versions.h
 */
#include "moecal/versions.h"

#include "moecal/linalg.h"
#include "moecal/statistics.h"

struct mc_json *mc_versions_json(struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();

	if (mc_json_set(root, "moecal", mc_json_new_string(MC_VERSION), err) &&
	    mc_json_set(root, "kernel", mc_json_new_string(mc_linalg_kernel()), err) &&
	    mc_json_set(root, "sqlite", mc_json_new_string(mc_statistics_library()), err) &&
	    mc_json_set(root, "compiler", mc_json_new_string(__VERSION__), err))
		return root;
	mc_json_free(root);
	return NULL;
}
