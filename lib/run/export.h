/*
 * export.h - from part files to results: parameters, checkpoint, proof
 */
#ifndef MC_RUN_EXPORT_H
#define MC_RUN_EXPORT_H

#include "folder.h"

#include "moecal/job.h"
#include "moecal/statistics.h"

#define MC_SHARD_BYTES 5000000000u /* the Hub's rule: decimal, tensor bytes */

struct mc_export {
	struct mc_job *job;
	const struct mc_folder *folder;
	struct mc_statistics *statistics;
	size_t steps; /* part files layer-00000 .. */
	const struct mc_env *env;
	uint64_t floor_tokens;
};

/* resume/quantization.safetensors and, unless the spec says no, resume/model/. */
bool mc_export_write(const struct mc_export *export, struct mc_error *err) MC_CHECKED;
/* Reads them again, compares, checks; resume/verdict.json. */
bool mc_export_verify(
    const struct mc_export *export, bool *ret_valid, struct mc_error *err) MC_CHECKED;
/* Arena bytes that mc_export_verify takes for one worker. */
bool mc_export_verify_bytes(
    const struct mc_job *job, uint64_t *ret_bytes, struct mc_error *err) MC_CHECKED;
/* Final names for all of it; the manifest, which is the proof that all is there, last. */
bool mc_export_publish(const struct mc_export *export, struct mc_error *err) MC_CHECKED;

/* The part files, open: where every computed tensor is. */
struct mc_parts {
	size_t count;
	struct mc_st_file *files; /* owned */
};
bool mc_parts_open(
    struct mc_parts *parts, const struct mc_export *export, struct mc_error *err) MC_CHECKED;
void mc_parts_close(struct mc_parts *parts);
/* NULL when no part has it. */
const struct mc_st_entry *mc_parts_find(
    const struct mc_parts *parts, const char *name, const struct mc_st_file **ret_file);

/* quantization_config for config.json (section 1.5 of the format): concrete ignore list. New,
 * owned. */
struct mc_json *mc_export_config(const struct mc_job *job, struct mc_error *err) MC_CHECKED;

#endif
