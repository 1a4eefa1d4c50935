/*
 * moe_sparse_block.c - the calibration module of MoE blocks whose experts are linears already
 *
 * Serves Qwen3MoeSparseMoeBlock, MixtralSparseMoeBlock and every block that the forward computes
 * the same way. It differs from the original in one thing: which tokens the experts see. Router,
 * weights and experts are shared with the original, so nothing has to be undone but the exchange
 * itself.
 */
#include "moe_module.h"

#include <stdlib.h>

#include "moecal/alloc.h"

static bool forward_all(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *err)
{
	(void)self;
	return mc_moe_forward(call, true, env, err);
}

static bool forward_routed(const struct mc_module *self, const struct mc_moe_call *call,
    const struct mc_env *env, struct mc_error *err)
{
	(void)self;
	return mc_moe_forward(call, false, env, err);
}

static const struct mc_moe_behaviour all_experts = {.forward = forward_all};
static const struct mc_moe_behaviour routed_experts = {.forward = forward_routed};

void mc_moe_module_free(struct mc_module *module)
{
	if (module == NULL)
		return;
	free(module->name);
	free(module->data);
	free(module);
}

bool mc_moe_sparse_create(struct mc_module *original, const struct mc_model_config *config,
    bool calibrate_all_experts, struct mc_module **ret, struct mc_error *err)
{
	if (config->experts == 0 || config->experts_per_token == 0 ||
	    config->experts_per_token > config->experts)
		return mc_fail(err, MC_INVALID, original->name,
		    "a %s needs 1 to all of its experts for each token; the configuration says %zu "
		    "of %zu",
		    original->class_name, config->experts_per_token, config->experts);

	struct mc_module *module = mc_alloc(1, sizeof *module, "calibration module", err);
	if (module == NULL)
		return false;
	*module = *original;
	module->name = mc_strdup(original->name, err);
	/* A class name of its own is not registered: the block is not found again. */
	module->data = mc_format(err, "Calibration%s", original->class_name);
	if (module->name == NULL || module->data == NULL) {
		mc_moe_module_free(module);
		return false;
	}
	module->class_name = module->data;
	module->behaviour = calibrate_all_experts ? &all_experts : &routed_experts;
	*ret = module;
	return true;
}

bool mc_moe_sparse_restore(struct mc_module *replacement, struct mc_module *original,
    struct mc_module **ret, struct mc_error *err)
{
	(void)err; /* nothing can fail: the original was never changed */
	mc_moe_module_free(replacement);
	*ret = original;
	return true;
}
