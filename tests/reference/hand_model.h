/*
 * hand_model.h - a model's modules without a checkpoint, for tests that exchange modules
 */
#ifndef MC_REFERENCE_HAND_MODEL_H
#define MC_REFERENCE_HAND_MODEL_H

#include "moecal/model.h"

/*
 * One MoE block a class name of moe_classes (NULL: a dense layer), each in a layer of its own, with
 * config's experts below it. Modules are "layers.N", "layers.N.mlp", "layers.N.mlp.gate" and
 * "layers.N.mlp.experts.E" with gate_proj, up_proj, down_proj. There are no weights. Owned:
 * release.
 */
void hand_model_init(struct mc_model *model, const struct mc_model_config *config,
    const char *const *moe_classes, size_t layers);
void hand_model_release(struct mc_model *model);

#endif
