/*
 * head_inputs.h - what the head of a model sees, when it is quantized
 */
#ifndef MC_RUN_HEAD_INPUTS_H
#define MC_RUN_HEAD_INPUTS_H

#include "input_search.h"

/* Adds the normed rows of hidden [T, D] to stats, which are made, and does the searches that the
 * head's scheme needs. All from env->arena. */
bool mc_observe_head(const struct mc_job *job, const struct mc_batch *batch, const float *hidden,
    const struct mc_head *head, struct mc_input_stats *stats, struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;

#endif
