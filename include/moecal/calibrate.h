/*
 * calibrate.h - run a job: from the opened spec to the published folder
 */
#ifndef MC_CALIBRATE_H
#define MC_CALIBRATE_H

#include "moecal/coverage.h"
#include "moecal/job.h"
#include "moecal/plan.h"

/* What is said while a job runs. `json` is the event as it stands in events.jsonl. */
struct mc_progress {
	const char *phase; /* "calibrate", "export", "verify" */
	size_t layers_done, layers_total;
	double layer_fraction; /* of the layer in work, 0..1 */
	uint64_t tokens;
	double seconds, seconds_left;             /* left < 0: not known yet */
	const struct mc_coverage_layer *coverage; /* of the layer just done; NULL otherwise */
	uint64_t starved_total;
};

struct mc_run_hooks {
	void (*progress)(
	    void *ctx, const struct mc_progress *progress);    /* may be NULL; may come often */
	void (*event)(void *ctx, const struct mc_json *event); /* may be NULL; durable ones */
	void *ctx;
};

struct mc_run_result {
	bool valid; /* the verdict */
	bool resumed;
	double seconds;
	uint64_t layers_resumed;
};

/*
 * Computes into folder `out`, which must be absent, empty, or hold the resume/ of the same job
 * (then it goes on there; CONFLICT when the spec, the inputs, the version or the kernel differ).
 * After each layer everything is durable; final names appear only when complete. CANCELED: the
 * finished layers are saved. Errors: CONFLICT (folder not empty), everything that computing may
 * say.
 */
bool mc_calibrate(struct mc_job *job, const struct mc_plan *plan, const char *out,
    const struct mc_run_hooks *hooks, const struct mc_env *env, struct mc_run_result *ret,
    struct mc_error *err) MC_CHECKED;
/* Whether `out` may be used: absent, empty, or with a resume/. CONFLICT otherwise, names what is
 * there. */
bool mc_require_output_folder(const char *out, struct mc_error *err) MC_CHECKED;

#endif
