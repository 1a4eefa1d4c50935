/*
 * job.h - a spec with everything it names opened and understood, before anything is computed
 */
#ifndef MC_JOB_H
#define MC_JOB_H

#include "moecal/match.h"
#include "moecal/model.h"
#include "moecal/spec.h"

struct mc_job {
	const struct mc_spec *spec; /* borrowed */
	struct mc_model model;
	struct mc_dataset dataset; /* zeroed when there is none */
	size_t *scheme; /* [model.modules_count]: index of a scheme or MC_NO_SCHEME; owned */
	struct mc_scheme *schemes; /* borrowed: the recipe's config groups, formats inferred */
	size_t schemes_count;
	size_t *attention; /* [layers]: scheme of the layer's attention module (q, k, v) or
			    * MC_NO_SCHEME; owned */
	size_t quantized; /* modules with a scheme, attention modules with a KV scheme among them */
	char **warnings;  /* sentences for the user; owned */
	size_t warnings_count;
};

/*
 * Opens model, tokenizer and dataset, assigns schemes, checks that every group divides and every
 * scheme can be computed. Reads headers, config, tokenizer and dataset, no weights.
 * Errors: everything that those may say; INVALID when no module gets a scheme.
 */
bool mc_job_open(struct mc_job *job, struct mc_spec *spec, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;
void mc_job_close(struct mc_job *job);
/* A part of opening, for tools: which module gets which scheme of job->spec's recipe, whether or not it
 * can be computed. The model must be open. */
bool mc_job_match(struct mc_job *job, struct mc_error *err) MC_CHECKED;

/* The dtype that a module's weights are calibrated in: spec's precision, or as stored. */
enum mc_dtype mc_job_weight_dtype(const struct mc_job *job, const struct mc_module *module);
/* The scheme of module number `index`, or NULL. */
const struct mc_scheme *mc_job_scheme(const struct mc_job *job, size_t index);
/* How a layer's attention module quantizes k and v, and q alike when *ret_query; NULL: it does not.
 * A config group that targets the module itself goes before kv_cache_scheme. */
const struct mc_quant_args *mc_job_attention(
    const struct mc_job *job, size_t layer, bool *ret_query);
/* True when experts see all tokens. */
bool mc_job_sees_all(const struct mc_job *job);
/* An expert with fewer routed tokens counts as starved: 1 % of an even share, at least 1. */
uint64_t mc_job_floor(const struct mc_job *job);

#endif
