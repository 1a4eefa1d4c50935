/*
 * head_inputs.h - the statistics of the head's inputs
 */
#ifndef MC_RUN_HEAD_INPUTS_H
#define MC_RUN_HEAD_INPUTS_H

#include "input_search.h"

#define MC_HEAD_ROWS 1024 /* tokens that are normed at a time */

/* From hidden [T, D], the residual stream after the last layer: stats, and searches, done, where
 * the head's scheme needs them. All from env->arena. */
bool mc_head_observe(const struct mc_job *job, const struct mc_head *head,
    const struct mc_batch *batch, const float *hidden, const struct mc_env *env,
    struct mc_input_stats *stats, struct mc_input_searches *searches,
    struct mc_error *err) MC_CHECKED;

#endif
