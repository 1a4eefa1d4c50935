/*
 * model_build.h - what the files that make a model share
 */
#ifndef MC_MODEL_BUILD_H
#define MC_MODEL_BUILD_H

#include "moecal/model.h"

/* Fills modules, layers, embed, final_norm, head and source_state of a model whose config, arch,
 * checkpoint and source are set, and checks every tensor. */
bool mc_model_build(struct mc_model *model, struct mc_error *err) MC_CHECKED;
/* The modules alone; of tensors only those that hold all experts of a layer are looked at. */
bool mc_model_build_outline(struct mc_model *model, struct mc_error *err) MC_CHECKED;
void mc_module_free(struct mc_module *module);

#endif
