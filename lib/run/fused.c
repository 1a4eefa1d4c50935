/*
 * fused.c - see fused.h
 */
#include "fused.h"

enum fusion { FUSED_NOT, FUSED_QKV, FUSED_GATE_UP };

static enum fusion fusion_of(const struct mc_module *m)
{
	if (m->kind != MC_KIND_LINEAR)
		return FUSED_NOT;
	if (m->role == MC_ROLE_Q || m->role == MC_ROLE_K || m->role == MC_ROLE_V)
		return FUSED_QKV;
	return m->role == MC_ROLE_GATE || m->role == MC_ROLE_UP ? FUSED_GATE_UP : FUSED_NOT;
}

bool mc_fused_is_member(const struct mc_module *module)
{
	return fusion_of(module) != FUSED_NOT;
}

bool mc_fused_together(const struct mc_module *a, const struct mc_module *b)
{
	return fusion_of(a) != FUSED_NOT && fusion_of(a) == fusion_of(b) && a->layer == b->layer &&
	       a->expert == b->expert;
}

static bool has_global_scale(const struct mc_job *job, size_t module)
{
	const struct mc_scheme *scheme = mc_job_scheme(job, module);

	return scheme != NULL && scheme->has_weights &&
	       scheme->weights.strategy == MC_STRATEGY_TENSOR_GROUP;
}

static bool fail_unlike(const struct mc_job *job, size_t with, size_t without, struct mc_error *err)
{
	const struct mc_scheme *other = mc_job_scheme(job, without);

	return mc_fail(err, MC_INVALID, job->model.modules[with]->name,
	    "is quantized under a global scale (tensor_group), which engines share with %s; that "
	    "one "
	    "is %s%s: quantize all of them alike",
	    job->model.modules[without]->name, other == NULL ? "not quantized" : "of group ",
	    other == NULL ? "" : other->name);
}

bool mc_fused_require_alike(const struct mc_job *job, struct mc_error *err)
{
	struct mc_module *const *modules = job->model.modules;
	size_t count = job->model.modules_count;

	/* a layer's modules stand together, and members of a group are of one layer */
	for (size_t i = 0; i < count; i++) {
		if (!has_global_scale(job, i) || !mc_fused_is_member(modules[i]))
			continue;
		size_t first = i, last = i;
		while (first > 0 && modules[first - 1]->layer == modules[i]->layer)
			first--;
		while (last + 1 < count && modules[last + 1]->layer == modules[i]->layer)
			last++;
		for (size_t j = first; j <= last; j++)
			if (modules[j]->weight != NULL && !has_global_scale(job, j) &&
			    mc_fused_together(modules[i], modules[j]))
				return fail_unlike(job, i, j, err);
	}
	return true;
}
