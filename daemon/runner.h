/*
 * runner.h - from queued to finished: one child process a job
 *
 * One thread claims jobs, starts `moecal run` for each through the executor, reads its events from a
 * pipe, writes them to the store and tells apart how it ended.
 */
#ifndef MOECALD_RUNNER_H
#define MOECALD_RUNNER_H

#include <stdint.h>

#include "moecal/error.h"

struct runner;
struct service;

struct runner *runner_start(struct service *service, struct mc_error *err) MC_CHECKED;
/* Something to look at: a new job, a cancel, other settings. Any thread. */
void runner_wake(struct runner *runner);
/* Asks running children to save, waits at most `seconds` for them, kills the rest, puts all back to
 * queued. Requests that are still in work may go on asking it. */
void runner_stop(struct runner *runner, unsigned seconds);
/* After runner_stop, when nobody asks any more. NULL is fine. */
void runner_free(struct runner *runner);
/* Milliseconds since the runner last went round its loop. */
int64_t runner_idle_ms(const struct runner *runner);
/* Memory planned for running jobs, the budget for all, and how many run. */
void runner_memory(const struct runner *runner, uint64_t *ret_granted, uint64_t *ret_budget, unsigned *ret_running);

#endif
