/*
 * manifest.h - what went in and what came out: digests, versions, times
 */
#ifndef MC_RUN_MANIFEST_H
#define MC_RUN_MANIFEST_H

#include "export.h"

#include "moecal/calibrate.h"

struct mc_input_file {
	char sha256[65];
	uint64_t bytes;
};
/* Digests of everything that the result depends on. */
struct mc_inputs {
	char spec_sha256[65]; /* of the canonical spec */
	char model_sha256[65];
	size_t datasets_count;
	struct mc_input_file *datasets; /* owned */
};
/* The digest of a spec, without the keys that change no bit of a result. */
bool mc_spec_digest(const struct mc_spec *spec, char hex[65], struct mc_error *err) MC_CHECKED;
/* A derived job's data are its source's; its model must be, too (CONFLICT). */
bool mc_inputs_read(struct mc_inputs *inputs, const struct mc_job *job, const struct mc_env *env,
    struct mc_error *err) MC_CHECKED;
void mc_inputs_release(struct mc_inputs *inputs);

/* spec.json, as accepted, every default filled in. */
bool mc_manifest_write_spec(
    const struct mc_job *job, const struct mc_folder *folder, struct mc_error *err) MC_CHECKED;
/* resume/manifest.json: written when everything else is. */
bool mc_manifest_write(const struct mc_export *export, const struct mc_plan *plan,
    const struct mc_inputs *inputs, const struct mc_run_result *result,
    struct mc_error *err) MC_CHECKED;

#endif
