/*
 * fused.h - linears that engines merge into one product, and what they must have in common
 *
 * q, k and v of a layer; gate and up of one expert or of a dense block. Under a global scale
 * (tensor_group) they share it, so all of them need that strategy or none.
 */
#ifndef MC_RUN_FUSED_H
#define MC_RUN_FUSED_H

#include "moecal/job.h"

bool mc_fused_is_member(const struct mc_module *module);
/* True for a member itself, too. */
bool mc_fused_together(const struct mc_module *a, const struct mc_module *b);
/* Every group has a global scale as a whole or not at all. Errors: INVALID, naming two members. */
bool mc_fused_require_alike(const struct mc_job *job, struct mc_error *err) MC_CHECKED;

#endif
