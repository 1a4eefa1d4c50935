/*
 * derive.h - other schemes from what a finished job learned, without running the model again
 *
 * calibration.db keeps the range of every sequence at every place where inputs are offered. Every
 * observer that is a fold over ranges gives the same bits from them as from the model, so a derived
 * job's parameters and checkpoint are those of a fresh job of the same spec. What looks at the
 * inputs themselves (a search over candidates, averages over groups of channels) is refused by
 * name.
 */
#ifndef MC_DERIVE_H
#define MC_DERIVE_H

#include "moecal/job.h"
#include "moecal/statistics.h"

/* A finished job whose statistics are used again. */
struct mc_source {
	char *folder;                     /* owned */
	struct mc_json *spec, *manifest;  /* owned */
	char manifest_sha256[65];         /* of the file: which job it is */
	struct mc_statistics *statistics; /* open for reading; owned */
	bool observed;                    /* it ran over data */
	bool channels;                    /* it kept statistics of channels */
	size_t sequences;
	uint64_t tokens;
	uint64_t model_bytes;
};

/*
 * Opens a job folder. Errors: NOT_FOUND; CONFLICT (not finished; statistics of an earlier program,
 * without ranges of sequences); CORRUPT (files that do not belong together, or are damaged).
 */
bool mc_source_open(struct mc_source *source, const char *folder, struct mc_error *err) MC_CHECKED;
void mc_source_close(struct mc_source *source); /* a zeroed one is fine */

/* The source's spec with the recipe of `changes`, an object; threads, memory_bytes and metadata may
 * be there, too. Every other key that differs is a problem with its pointer. New, owned; NULL only
 * when out of memory. */
struct mc_json *mc_source_spec(const struct mc_source *source, const struct mc_json *changes,
    struct mc_problems *problems, struct mc_error *err) MC_CHECKED;

/*
 * As mc_job_open, with the source's data: the dataset is neither needed nor read. source stays the
 * caller's until the job is closed. Then mc_plan_make and mc_calibrate work as for any job.
 * Errors: besides, CONFLICT (another model than the source's; statistics that it did not keep, with
 * what it must be run with), UNSUPPORTED (an observer that is no fold over ranges, by module).
 */
bool mc_job_open_derived(struct mc_job *job, struct mc_spec *spec, struct mc_source *source,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;

#endif
