/*
 * moe_context.h - the MoE calibration context
 *
 * A registry maps the class name of an MoE block to a calibration module. Entering the context puts a
 * calibration module in the place of every registered block of a model; leaving it puts the originals
 * back, but for permanent ones. Source: llm-compressor's moe_calibration_context and
 * MoECalibrationModule; departures (failure rules) are in docs/ARCHITECTURE.md.
 */
#ifndef MC_MOE_CONTEXT_H
#define MC_MOE_CONTEXT_H

#include "moecal/forward.h"

/* One kind of calibration module. */
struct mc_moe_calibration {
	const char *class_name; /* of the original: "Qwen3MoeSparseMoeBlock" */
	bool is_permanent;      /* stays after the context: it unpacked fused experts */
	/* A new module with the name of the original and a behaviour; sub-modules are shared, nothing is
	 * copied. Owned by the caller, who frees it as name, data (one block or NULL) and struct. */
	bool (*create)(struct mc_module *original, const struct mc_model_config *config,
	    bool calibrate_all_experts, struct mc_module **ret, struct mc_error *err);
	/* Which module to put back; frees the replacement if another one is returned, nothing when it
	 * fails. Required unless permanent; of a permanent one it returns itself (set by _add). */
	bool (*restore)(struct mc_module *replacement, struct mc_module *original,
	    struct mc_module **ret, struct mc_error *err);
};

/* Names are looked up normalised: lower case, '_' and ' ' as '-'. An open context points at its kinds:
 * nothing is added meanwhile. */
struct mc_moe_registry {
	size_t count, capacity;
	struct mc_moe_calibration *kinds; /* owned; class_name borrowed */
};
/* The blocks of all architectures that we know. */
bool mc_moe_registry_init(struct mc_moe_registry *registry, struct mc_error *err) MC_CHECKED;
void mc_moe_registry_release(struct mc_moe_registry *registry);
/* Errors: UNSUPPORTED when not permanent and without restore; CONFLICT when the name is taken. */
bool mc_moe_registry_add(struct mc_moe_registry *registry, const struct mc_moe_calibration *kind,
    struct mc_error *err) MC_CHECKED;
const struct mc_moe_calibration *mc_moe_registry_find(const struct mc_moe_registry *registry,
    const char *class_name);

struct mc_calibration_context {
	struct mc_model *model;
	bool calibrate_all_experts;
	size_t found, replaced_count, permanent;
	struct mc_moe_replaced { /* [replaced_count]; owned */
		struct mc_module *original; /* NULL when permanent: freed */
		struct mc_module *replacement;
		const struct mc_moe_calibration *kind;
	} *replaced;
};

/* Called after each replacement; may be NULL. */
typedef void mc_moe_progress(void *ctx, size_t done, size_t total, const char *name);

/*
 * Replaces every registered block, in module order, and logs how many were found, replaced, stay and
 * will be restored. An error while replacing undoes what was replaced (also permanent ones of this
 * call). A replaced module is not replaced again (entering twice finds nothing new).
 */
bool mc_calibration_context_enter(struct mc_calibration_context *context, struct mc_model *model,
    const struct mc_moe_registry *registry, bool calibrate_all_experts, mc_moe_progress *progress,
    void *progress_ctx, const struct mc_env *env, struct mc_error *err) MC_CHECKED;

/* Puts the non-permanent ones back; call it on success and on every error path, once (again: no-op, as
 * on a zeroed context and after an enter that failed). All are tried; the first error is reported, and
 * the original is back even where its restore failed. */
bool mc_calibration_context_exit(struct mc_calibration_context *context, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

#endif
