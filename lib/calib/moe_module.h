/*
 * moe_module.h - what the files of the MoE calibration context share
 */
#ifndef MC_CALIB_MOE_MODULE_H
#define MC_CALIB_MOE_MODULE_H

#include "moecal/moe_context.h"

/* Frees a module that create made: name, data (one block or NULL), itself. */
void mc_moe_module_free(struct mc_module *module);

/* The calibration module of blocks whose experts are linears already (moe_sparse_block.c). */
bool mc_moe_sparse_create(struct mc_module *original, const struct mc_model_config *config,
    bool calibrate_all_experts, struct mc_module **ret, struct mc_error *err) MC_CHECKED;
bool mc_moe_sparse_restore(struct mc_module *replacement, struct mc_module *original,
    struct mc_module **ret, struct mc_error *err) MC_CHECKED;

#endif
