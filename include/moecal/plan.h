/*
 * plan.h - what a job will cost, from headers and token counts alone
 */
#ifndef MC_PLAN_H
#define MC_PLAN_H

#include "moecal/job.h"

#define MC_PLAN_MEASURE (-1.0)

struct mc_plan {
	size_t layers, moe_layers, experts, experts_per_token;
	uint64_t parameters; /* of the model */
	size_t modules_quantized;
	size_t sequences;
	uint64_t tokens;
	uint64_t model_bytes;  /* read from disk, once */
	uint64_t memory_bytes; /* peak of the process: arena_bytes, code, stacks, BLAS */
	uint64_t arena_bytes;  /* peak of the arena */
	uint64_t memory_layer, memory_scratch, memory_statistics, memory_hidden, memory_packed;
	uint64_t disk_bytes;       /* written at most at one time: resume, parameters, checkpoint */
	uint64_t checkpoint_bytes; /* of model/ */
	double flops;
	double gflops;  /* measured rate; 0 when not measured */
	double seconds; /* estimated from both; 0 when not measured */
	unsigned threads;
};

/* gflops: rate to estimate seconds with, as an earlier plan told; MC_PLAN_MEASURE: time a short
 * product now; 0: no estimate. Errors: NO_MEMORY, ... */
bool mc_plan_make(struct mc_plan *plan, const struct mc_job *job, double gflops,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;
/* Refuses with both numbers what does not fit: NO_MEMORY (memory_available), NO_SPACE
 * (disk_available). */
bool mc_plan_require_fits(const struct mc_plan *plan, uint64_t memory_available,
    uint64_t disk_available, struct mc_error *err) MC_CHECKED;
/* New, owned. */
struct mc_json *mc_plan_json(const struct mc_plan *plan, struct mc_error *err) MC_CHECKED;
/* Memory that a job may take on this machine when the spec does not say: 3/4 of what is available.
 */
uint64_t mc_machine_memory(void);
unsigned mc_machine_threads(void);

#endif
