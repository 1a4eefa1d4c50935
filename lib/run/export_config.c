/*
 * export_config.c - the config.json of a quantized checkpoint
 *
 * Groups are the distinct schemes in first-seen order of the modules; ignore lists by name every
 * module of a class that was quantized at least once and that is not quantized itself, class by
 * class in first-seen order. Routers count as Linear, because loaders need to see them there.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "export.h"

#include "moecal/alloc.h"

#define FORMAT_VERSION "0.19.0" /* of compressed-tensors, whose rules the files follow */

static const char *ignore_class(const struct mc_module *m)
{
	if (m->kind == MC_KIND_ROUTER)
		return "Linear";
	if (m->kind == MC_KIND_LINEAR || m->kind == MC_KIND_EMBEDDING)
		return m->class_name;
	return NULL;
}

static bool add_ignore(const struct mc_job *job, struct mc_json *ignore, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	static const char *const classes[] = {"Linear", "Embedding"};

	for (size_t c = 0; c < 2; c++) {
		bool quantized = false;
		for (size_t i = 0; i < model->modules_count; i++) {
			const char *name = ignore_class(model->modules[i]);
			quantized |= name != NULL && strcmp(name, classes[c]) == 0 &&
				     mc_job_scheme(job, i) != NULL;
		}
		for (size_t i = 0; quantized && i < model->modules_count; i++) {
			const char *name = ignore_class(model->modules[i]);
			if (name != NULL && strcmp(name, classes[c]) == 0 &&
			    mc_job_scheme(job, i) == NULL &&
			    !mc_json_append(
				ignore, mc_json_new_string(model->modules[i]->name), err))
				return false;
		}
		/* a tied head has no weight of its own and so no module: loaders still look for its
		 * name */
		if (quantized && c == 0 && model->head == MC_NO_INDEX &&
		    !mc_json_append(ignore, mc_json_new_string(model->arch->names.lm_head), err))
			return false;
	}
	return true;
}

static bool add_groups(const struct mc_job *job, struct mc_json *groups, enum mc_format *ret_format,
    struct mc_error *err)
{
	bool *seen = mc_alloc(job->schemes_count, sizeof *seen, "config groups", err);
	size_t count = 0;
	bool ok = seen != NULL;

	*ret_format = MC_FORMAT_DENSE;
	for (size_t i = 0; ok && i < job->model.modules_count; i++) {
		char name[32];
		if (job->scheme[i] == MC_NO_SCHEME || seen[job->scheme[i]])
			continue;
		const struct mc_scheme *scheme = &job->schemes[job->scheme[i]];
		seen[job->scheme[i]] = true;
		snprintf(name, sizeof name, "group_%zu", count);
		*ret_format = count == 0 || *ret_format == scheme->format ? scheme->format
									  : MC_FORMAT_MIXED;
		ok = mc_json_set(groups, name, mc_scheme_json(scheme, err), err);
		count++;
	}
	free(seen);
	return ok;
}

struct mc_json *mc_export_config(const struct mc_job *job, struct mc_error *err)
{
	struct mc_json *config = mc_json_new_object(), *groups = mc_json_new_object(),
		       *ignore = mc_json_new_array();
	enum mc_format format;
	bool ok = mc_json_set(config, "config_groups", groups, err) &&
		  mc_json_set(config, "ignore", ignore, err) &&
		  add_groups(job, groups, &format, err) && add_ignore(job, ignore, err) &&
		  mc_json_set(config, "format", mc_json_new_string(mc_format_name(format)), err) &&
		  mc_json_set(config, "global_compression_ratio", mc_json_new_null(), err) &&
		  mc_json_set(config, "kv_cache_scheme", mc_json_new_null(), err) &&
		  mc_json_set(
		      config, "quant_method", mc_json_new_string("compressed-tensors"), err) &&
		  mc_json_set(
		      config, "quantization_status", mc_json_new_string("compressed"), err) &&
		  mc_json_set(config, "sparsity_config", mc_json_new_object(), err) &&
		  mc_json_set(config, "transform_config", mc_json_new_object(), err) &&
		  mc_json_set(config, "version", mc_json_new_string(FORMAT_VERSION), err);

	if (ok)
		return config;
	mc_json_free(config);
	return NULL;
}
