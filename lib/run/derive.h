/*
 * derive.h - what a derived job asks of its source
 */
#ifndef MC_RUN_DERIVE_H
#define MC_RUN_DERIVE_H

#include "manifest.h"

#include "moecal/derive.h"

/* Whether all that the job's recipe needs was kept; errors as mc_job_open_derived. */
bool mc_derive_require(const struct mc_job *job, struct mc_error *err) MC_CHECKED;
/* CONFLICT when the model's digest is another than the source's. */
bool mc_derive_require_model(
    const struct mc_job *job, const char *model_sha256, struct mc_error *err) MC_CHECKED;
/* The digests of the data that the source learned from. */
bool mc_derive_datasets(
    const struct mc_job *job, struct mc_inputs *inputs, struct mc_error *err) MC_CHECKED;

#endif
