/*
 * arch.h - what the files of single architectures share
 */
#ifndef MC_MODEL_ARCH_H
#define MC_MODEL_ARCH_H

#include "moecal/architecture.h"

/* Extra parts that releases carry and the decoder does not use; NULL-terminated. */
extern const char *const mc_arch_ignored[];

extern const struct mc_architecture mc_arch_mixtral;
extern const struct mc_architecture mc_arch_qwen3_moe;

#endif
