/*
 * verify_attention.h - parameters of attention modules in a checkpoint that somebody wrote
 */
#ifndef MC_RUN_VERIFY_ATTENTION_H
#define MC_RUN_VERIFY_ATTENTION_H

#include "check_module.h"

/*
 * Adds to verdict: what config says of attention must be there, sound and of the right shape, and
 * nothing else of its kind. Attention modules are those whose tensors begin with
 * "<module>.k_proj."; how many heads they have is read in config.json. False only when something
 * cannot be read, or the schemes cannot be checked: UNSUPPORTED, INVALID.
 */
bool mc_verify_attention(struct mc_verdict *verdict, const struct mc_checkpoint *checkpoint,
    const struct mc_quant_config *config, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;

#endif
