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

/* The config group of module number `index` or MC_NO_SCHEME; that of attention is kept by layer once
 * it is settled. kv_cache_scheme is no group. */
static size_t group_of(const struct mc_job *job, size_t index)
{
	const struct mc_module *m = job->model.modules[index];

	return m->role == MC_ROLE_ATTENTION && job->attention != NULL ? job->attention[m->layer]
								      : job->scheme[index];
}

/* The scheme of a module that is quantized in any way. */
static const struct mc_scheme *quantized_by(const struct mc_job *job, size_t index)
{
	size_t group = group_of(job, index);

	if (group == MC_NO_SCHEME)
		return NULL;
	const struct mc_scheme *scheme = &job->schemes[group];
	return scheme->has_weights || scheme->has_input || scheme->has_output ? scheme : NULL;
}

/* The class that a module is listed under, NULL for those that never are. */
static const char *ignore_class(const struct mc_module *m)
{
	if (m->kind == MC_KIND_ROUTER)
		return "Linear";
	if (m->kind == MC_KIND_LINEAR || m->kind == MC_KIND_EMBEDDING ||
	    m->role == MC_ROLE_ATTENTION)
		return m->class_name;
	return NULL;
}

static bool class_is_quantized(const struct mc_job *job, const char *class_name)
{
	for (size_t i = 0; i < job->model.modules_count; i++) {
		const char *name = ignore_class(job->model.modules[i]);
		if (name != NULL && strcmp(name, class_name) == 0 && quantized_by(job, i) != NULL)
			return true;
	}
	return false;
}

/* All modules of the class that stay as they are. */
static bool ignore_class_members(
    const struct mc_job *job, const char *class_name, struct mc_json *ignore, struct mc_error *err)
{
	const struct mc_model *model = &job->model;

	for (size_t i = 0; i < model->modules_count; i++) {
		const char *name = ignore_class(model->modules[i]);
		if (name != NULL && strcmp(name, class_name) == 0 && quantized_by(job, i) == NULL &&
		    !mc_json_append(ignore, mc_json_new_string(model->modules[i]->name), err))
			return false;
	}
	/* a tied head has no weight of its own and so no module: loaders still look for its name */
	return strcmp(class_name, "Linear") != 0 || model->head != MC_NO_INDEX ||
	       mc_json_append(ignore, mc_json_new_string(model->arch->names.lm_head), err);
}

/* Classes in the order in which a module that is not quantized is first met. */
static bool add_ignore(const struct mc_job *job, struct mc_json *ignore, struct mc_error *err)
{
	const char *seen[4]; /* a linear's, an embedding's, attention's; the tied head's */
	size_t count = 0;
	bool ok = true;

	for (size_t i = 0; ok && i <= job->model.modules_count; i++) {
		bool end = i == job->model.modules_count;
		const char *name = end ? "Linear" : ignore_class(job->model.modules[i]);
		bool known = name == NULL || (!end && quantized_by(job, i) != NULL) ||
			     (end && job->model.head != MC_NO_INDEX);
		for (size_t k = 0; !known && k < count; k++)
			known = strcmp(seen[k], name) == 0;
		if (known || count == sizeof seen / sizeof *seen)
			continue;
		seen[count++] = name;
		ok = !class_is_quantized(job, name) || ignore_class_members(job, name, ignore, err);
	}
	return ok;
}

/* Whether an equal scheme is among the groups; two modifiers can bring the same. */
static bool has_group(const struct mc_json *groups, const struct mc_json *scheme)
{
	struct mc_json_iter group = mc_json_iter(groups);

	while (mc_json_next(&group))
		if (mc_json_equal(group.value, scheme))
			return true;
	return false;
}

/* The format at the top: that of all groups, of those that store weights in another way. */
static enum mc_format join_formats(enum mc_format all, enum mc_format one)
{
	if (one == MC_FORMAT_DENSE || all == one)
		return all;
	return all == MC_FORMAT_DENSE ? one : MC_FORMAT_MIXED;
}

static bool add_groups(const struct mc_job *job, struct mc_json *groups, enum mc_format *ret_format,
    struct mc_error *err)
{
	bool *seen = mc_alloc(job->schemes_count, sizeof *seen, "config groups", err);
	bool ok = seen != NULL;

	*ret_format = MC_FORMAT_DENSE; /* of groups without weights, which have no say */
	for (size_t i = 0; ok && i < job->model.modules_count; i++) {
		const struct mc_scheme *scheme = quantized_by(job, i);
		char name[32];
		size_t group = group_of(job, i);
		if (scheme == NULL || seen[group])
			continue;
		seen[group] = true;
		struct mc_json *json = mc_scheme_json(scheme, err);
		ok = json != NULL;
		if (ok && !has_group(groups, json)) {
			*ret_format = join_formats(*ret_format, scheme->format);
			snprintf(name, sizeof name, "group_%zu", mc_json_size(groups));
			ok = mc_json_set(groups, name, json, err);
			json = NULL;
		}
		mc_json_free(json);
	}
	free(seen);
	return ok;
}

/* What attention modules do with k and v: as their own group says, else as kv_cache_scheme does; of
 * the last one, as the reference writes it. */
static struct mc_json *kv_cache_json(const struct mc_job *job, struct mc_error *err)
{
	const struct mc_quant_config *config = &job->spec->recipe.config;
	const struct mc_quant_args *args = NULL;

	for (size_t i = 0; i < job->model.modules_count; i++) {
		const struct mc_scheme *own = quantized_by(job, i);
		if (job->model.modules[i]->role != MC_ROLE_ATTENTION)
			continue;
		if (own != NULL && own->has_input)
			args = &own->input;
		else if (config->has_kv_cache)
			args = &config->kv_cache;
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
