/*
 * moe_context.c - puts calibration modules in the place of MoE blocks, and the originals back
 *
 * Originals are kept until every block is replaced, so that a failure half-way can undo all of it;
 * only then are the originals of permanent modules let go.
 */
#include "moecal/moe_context.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

#include "moe_module.h"

/* A module with a behaviour is a replacement already, whatever its class is called. */
static const struct mc_moe_calibration *kind_for(
    const struct mc_moe_registry *registry, const struct mc_module *module)
{
	return module->behaviour != NULL ? NULL
					 : mc_moe_registry_find(registry, module->class_name);
}

static bool find_blocks(struct mc_calibration_context *context,
    const struct mc_moe_registry *registry, struct mc_error *err)
{
	const struct mc_model *model = context->model;
	size_t n = 0;

	for (size_t i = 0; i < model->modules_count; i++)
		context->found += kind_for(registry, model->modules[i]) != NULL;
	if (context->found == 0)
		return true;
	context->replaced =
	    mc_alloc(context->found, sizeof *context->replaced, "MoE calibration context", err);
	if (context->replaced == NULL)
		return false;
	for (size_t i = 0; i < model->modules_count; i++) {
		const struct mc_moe_calibration *kind = kind_for(registry, model->modules[i]);
		if (kind != NULL)
			context->replaced[n++] =
			    (struct mc_moe_replaced){.original = model->modules[i], .kind = kind};
	}
	return true;
}

static void exchange(struct mc_model *model, struct mc_module *present, struct mc_module *next)
{
	struct mc_module *old = mc_model_set_module(model, present->name, next);
	mc_assert(old == present);
}

static bool replace(
    struct mc_calibration_context *context, struct mc_moe_replaced *item, struct mc_error *err)
{
	struct mc_module *original = item->original, *module = NULL;

	if (!item->kind->create(
		original, &context->model->config, context->calibrate_all_experts, &module, err))
		return mc_fail(err, MC_INTERNAL, original->name,
		    "the calibration module for %s could not be made and did not say why",
		    original->class_name);
	if (module == NULL || module == original || strcmp(module->name, original->name) != 0) {
		if (module != original)
			mc_moe_module_free(module);
		return mc_fail(err, MC_INTERNAL, original->name,
		    "the calibration module for %s made no new module of this name",
		    original->class_name);
	}
	exchange(context->model, original, module);
	item->replacement = module;
	context->replaced_count++;
	context->permanent += item->kind->is_permanent;
	return true;
}

/*
 * The original goes back first: restore may free the replacement, and when restore fails the model
 * is whole all the same.
 */
static bool put_back(struct mc_model *model, struct mc_moe_replaced *item, struct mc_error *err)
{
	struct mc_module *original = item->original, *replacement = item->replacement,
			 *module = NULL;
	struct mc_error why;

	exchange(model, replacement, original);
	mc_error_init(&why);
	bool ok = item->kind->restore(replacement, original, &module, &why);
	if (!ok || module == NULL) {
		mc_moe_module_free(replacement);
		if (ok || why.code == MC_OK)
			return mc_fail(err, MC_INTERNAL, original->name,
			    "the calibration module named no module to put back");
		return mc_fail(err, why.code, why.where[0] != '\0' ? why.where : original->name,
		    "%s", why.text);
	}
	if (module != original) {
		exchange(model, original, module);
		mc_moe_module_free(original);
	}
	return true;
}

static void undo(struct mc_calibration_context *context, struct mc_error *err)
{
	for (size_t i = context->replaced_count; i-- > 0;) {
		struct mc_moe_replaced *item = &context->replaced[i];
		if (item->kind->is_permanent) {
			exchange(context->model, item->replacement, item->original);
			mc_moe_module_free(item->replacement);
		} else {
			/* err keeps why replacing failed; the original is back in any case */
			(void)put_back(context->model, item, err);
		}
	}
}

static void forget(struct mc_calibration_context *context)
{
	free(context->replaced);
	*context = (struct mc_calibration_context){0};
}

static void report(const struct mc_calibration_context *context, const struct mc_env *env)
{
	size_t restorable = context->replaced_count - context->permanent;

	mc_env_log(env, MC_LOG_INFO,
	    "replaced %zu MoE blocks for calibration; their experts see %s",
	    context->replaced_count,
	    context->calibrate_all_experts ? "all tokens" : "the tokens that are routed to them");
	if (context->permanent > 0)
		mc_env_log(env, MC_LOG_INFO, "%zu of %zu replaced MoE blocks stay permanently",
		    context->permanent, context->replaced_count);
	if (restorable > 0)
		mc_env_log(env, MC_LOG_INFO, "%zu MoE blocks will be restored after calibration",
		    restorable);
}

bool mc_calibration_context_enter(struct mc_calibration_context *context, struct mc_model *model,
    const struct mc_moe_registry *registry, bool calibrate_all_experts, mc_moe_progress *progress,
    void *progress_ctx, const struct mc_env *env, struct mc_error *err)
{
	*context = (struct mc_calibration_context){
	    .model = model, .calibrate_all_experts = calibrate_all_experts};
	mc_env_log(env, MC_LOG_DEBUG, "entering the MoE calibration context");
	if (!find_blocks(context, registry, err)) {
		forget(context);
		return false;
	}
	if (context->found == 0)
		return true;
	mc_env_log(env, MC_LOG_INFO, "found %zu MoE blocks to replace", context->found);

	for (size_t i = 0; i < context->found; i++) {
		struct mc_moe_replaced *item = &context->replaced[i];
		if (!mc_env_go_on(env, err) || !replace(context, item, err)) {
			undo(context, err);
			forget(context);
			return false;
		}
		if (progress != NULL)
			progress(progress_ctx, i + 1, context->found, item->replacement->name);
	}
	for (size_t i = 0; i < context->found; i++) {
		struct mc_moe_replaced *item = &context->replaced[i];
		if (item->kind->is_permanent) {
			mc_moe_module_free(item->original);
			item->original = NULL;
		}
	}
	report(context, env);
	return true;
}

bool mc_calibration_context_exit(
    struct mc_calibration_context *context, const struct mc_env *env, struct mc_error *err)
{
	bool ok = true;

	if (context->model == NULL)
		return true;
	for (size_t i = 0; i < context->replaced_count; i++) {
		struct mc_moe_replaced *item = &context->replaced[i];
		if (!item->kind->is_permanent && !put_back(context->model, item, err))
			ok = false;
	}
	mc_env_log(env, MC_LOG_DEBUG, "left the MoE calibration context");
	forget(context);
	return ok;
}
