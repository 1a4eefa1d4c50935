/*
 * quantize_layer.h - from a layer's weights and input statistics to its checkpoint tensors
 */
#ifndef MC_RUN_QUANTIZE_LAYER_H
#define MC_RUN_QUANTIZE_LAYER_H

#include "input_search.h"

#include "moecal/job.h"
#include "moecal/observer.h"
#include "moecal/pack.h"
#include "moecal/statistics.h"

/* One linear of the layer. */
struct mc_linear_task {
	size_t module;                      /* index in the model */
	const struct mc_scheme *scheme;     /* NULL: only its statistics are kept */
	struct mc_weight weight;            /* dtype = what it is calibrated in */
	const struct mc_input_stats *input; /* or NULL: no data */
	bool fused;                         /* its global scale is shared: observed beforehand */
	struct mc_observed observed;
	const char *source;      /* "measured", "all-tokens", "weights-only" */
	struct mc_packed packed; /* data in the arena */
	struct mc_module_row row;
};

struct mc_layer_result {
	size_t count;
	struct mc_linear_task *tasks;
	const char **expert_source; /* [E] or NULL */
	size_t attention_module;    /* index in the model */
	struct mc_packed attention; /* its tensors: scales and zero points of q, k, v */
};

/* Bytes that quantizing a layer takes from the arena beyond its weights. */
bool mc_quantize_layer_bytes(const struct mc_job *job, size_t layer, unsigned workers,
    uint64_t *ret_packed, uint64_t *ret_scratch, struct mc_error *err) MC_CHECKED;

/* All from env->arena. observer NULL: data-free. searches: of the layer's inputs, done; or NULL. */
bool mc_quantize_layer(const struct mc_job *job, const struct mc_layer *layer,
    const struct mc_layer_observer *observer, const struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_layer_result *ret, struct mc_error *err) MC_CHECKED;
/* The head alone; input NULL: no data. */
bool mc_quantize_head(const struct mc_job *job, const struct mc_weight *weight,
    const struct mc_input_stats *input, const struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_layer_result *ret, struct mc_error *err) MC_CHECKED;

/* Writes the packed tensors of all tasks and of attention as one safetensors file, durably. */
bool mc_layer_result_write(const struct mc_layer_result *result, const struct mc_job *job,
    const char *path, struct mc_error *err) MC_CHECKED;

#endif
