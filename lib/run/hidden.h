/*
 * hidden.h - the hidden states before a layer, kept in resume/ so that a job can go on there
 */
#ifndef MC_RUN_HIDDEN_H
#define MC_RUN_HIDDEN_H

#include "folder.h"

#include <stddef.h>

/* Durable when it returns; layer: the one that will read them. */
bool mc_hidden_save(const struct mc_folder *folder, size_t layer, const float *hidden, size_t bytes,
    struct mc_error *err) MC_CHECKED;
bool mc_hidden_load(const struct mc_folder *folder, size_t layer, float *hidden, size_t bytes,
    struct mc_error *err) MC_CHECKED;
/* Not needed once the layer's row is committed. */
void mc_hidden_drop(const struct mc_folder *folder, size_t layer);

#endif
