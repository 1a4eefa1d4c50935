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
	if (m->kind == MC_KIND_LINEAR || m->kind == MC_KIND_EMBEDDING ||
	    m->role == MC_ROLE_ATTENTION)
		return m->class_name;
	return NULL;
}

/* The config group of module number `index` or MC_NO_SCHEME. kv_cache_scheme is no group. */
static size_t group_of(const struct mc_job *job, size_t index)
{
	const struct mc_module *m = job->model.modules[index];

	return m->role == MC_ROLE_ATTENTION ? job->attention[m->layer] : job->scheme[index];
}

/* Loaders look for a tied head's name, though it has no weight of its own and so no module. */
static bool has_tied_head(const struct mc_job *job)
{
	return job->model.head == MC_NO_INDEX;
}

static bool is_of_class(const struct mc_job *job, size_t index, const char *name)
{
	const char *own = ignore_class(job->model.modules[index]);

	return own != NULL && strcmp(own, name) == 0;
}

/* All modules of a class that have no group, when others of it have one. */
static bool add_class(
    const struct mc_job *job, const char *name, struct mc_json *ignore, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	bool quantized = false;

	for (size_t i = 0; i < model->modules_count; i++)
		quantized |= is_of_class(job, i, name) && group_of(job, i) != MC_NO_SCHEME;
	for (size_t i = 0; quantized && i < model->modules_count; i++)
		if (is_of_class(job, i, name) && group_of(job, i) == MC_NO_SCHEME &&
		    !mc_json_append(ignore, mc_json_new_string(model->modules[i]->name), err))
			return false;
	return !quantized || strcmp(name, "Linear") != 0 || !has_tied_head(job) ||
	       mc_json_append(ignore, mc_json_new_string(model->arch->names.lm_head), err);
}

/* Classes in the order in which the first module without a group is met; a tied head is the last.
 */
static bool add_ignore(const struct mc_job *job, struct mc_json *ignore, struct mc_error *err)
{
	const struct mc_model *model = &job->model;
	const char *const classes[] = {"Linear", "Embedding", model->arch->classes.attention};
	bool done[3] = {false};

	for (size_t i = 0; i < model->modules_count; i++)
		for (size_t c = 0; c < 3; c++) {
			if (done[c] || group_of(job, i) != MC_NO_SCHEME ||
			    !is_of_class(job, i, classes[c]))
				continue;
			done[c] = true;
			if (!add_class(job, classes[c], ignore, err))
				return false;
		}
	return done[0] || add_class(job, classes[0], ignore, err);
}

static bool add_groups(const struct mc_job *job, struct mc_json *groups, enum mc_format *ret_format,
    struct mc_error *err)
{
	bool *seen = mc_alloc(job->schemes_count, sizeof *seen, "config groups", err);
	size_t count = 0;
	bool ok = seen != NULL;

	*ret_format = MC_FORMAT_DENSE; /* of groups without weights, which have no say */
	for (size_t i = 0; ok && i < job->model.modules_count; i++) {
		char name[32];
		size_t group = group_of(job, i);
		if (group == MC_NO_SCHEME || seen[group])
			continue;
		const struct mc_scheme *scheme = &job->schemes[group];
		seen[group] = true;
		snprintf(name, sizeof name, "group_%zu", count);
		if (*ret_format == MC_FORMAT_DENSE)
			*ret_format = scheme->format;
		else if (scheme->format != MC_FORMAT_DENSE && scheme->format != *ret_format)
			*ret_format = MC_FORMAT_MIXED;
		ok = mc_json_set(groups, name, mc_scheme_json(scheme, err), err);
		count++;
	}
	free(seen);
	return ok;
}

/* What attention modules do with k and v; of the last one, as the reference writes it. */
static struct mc_json *kv_cache_json(const struct mc_job *job, struct mc_error *err)
{
	const struct mc_quant_args *args = NULL, *last;
	bool query;

	for (size_t l = 0; l < job->model.config.layers; l++) {
		last = mc_job_attention(job, l, &query);
		args = last != NULL ? last : args;
	}
	return mc_quant_args_json(args, err);
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
		  mc_json_set(config, "kv_cache_scheme", kv_cache_json(job, err), err) &&
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
