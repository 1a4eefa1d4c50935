/*
 * quantize_attention.h - parameters of attention modules: scales and zero points of q, k and v
 *
 * kv_cache_scheme quantizes k and v of every attention module; a config group whose target is an
 * attention module itself quantizes q, k and v of that one and goes first.
 */
#ifndef MC_RUN_QUANTIZE_ATTENTION_H
#define MC_RUN_QUANTIZE_ATTENTION_H

#include "moecal/job.h"
#include "moecal/observer.h"
#include "moecal/pack.h"

/* Which scheme each attention module gets: fills job->attention from what the targets matched and
 * takes it out of job->scheme, which is about weights. Errors: INVALID, UNSUPPORTED for schemes
 * that no attention module can have; NO_MEMORY. */
bool mc_job_settle_attention(struct mc_job *job, struct mc_error *err) MC_CHECKED;
/* Whether scheme number `index` is for attention modules and for nothing else. */
bool mc_job_is_for_attention(const struct mc_job *job, size_t index);

/* Errors: INVALID, UNSUPPORTED, naming what q, k and v cannot have or what is not there yet. */
bool mc_attention_require_supported(
    const struct mc_quant_args *args, const char *where, struct mc_error *err) MC_CHECKED;

/* What is kept of one attention module. */
struct mc_attention_parts {
	const struct mc_quant_args *args;
	bool query; /* q too, with zero points even where they are all 0 */
	size_t heads, kv_heads;
	enum mc_dtype dt; /* of the scales */
};
/* Its tensors without data: "k_scale", ...; none when the scheme is dynamic. */
void mc_attention_layout(const struct mc_attention_parts *parts, struct mc_packed *ret);
/* The same of a layer; none when its attention is not quantized. */
void mc_job_attention_layout(const struct mc_job *job, size_t layer, struct mc_packed *ret);

/* Asks the layer's observer for the ranges that the scheme needs, in env->arena. */
bool mc_observe_attention(const struct mc_job *job, size_t layer,
    struct mc_layer_observer *observer, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
uint64_t mc_observe_attention_bytes(const struct mc_job *job, size_t layer);

/* The tensors with data from env->arena. observer may be NULL when nothing is kept. Errors: INVALID
 * when no token was seen, NO_MEMORY. */
bool mc_quantize_attention(const struct mc_job *job, size_t layer,
    const struct mc_layer_observer *observer, const struct mc_env *env, struct mc_packed *ret,
    struct mc_error *err) MC_CHECKED;
uint64_t mc_quantize_attention_bytes(const struct mc_job *job, size_t layer);

#endif
