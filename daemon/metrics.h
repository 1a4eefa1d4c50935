/*
 * metrics.h - what Prometheus scrapes; one row a metric
 *
 * Names: base units, _total on counters, no ids in labels. Counters and gauges are atomic; any
 * thread may count. Text format 0.0.4.
 */
#ifndef MOECALD_METRICS_H
#define MOECALD_METRICS_H

#include <stdint.h>

#include "moecal/buf.h"

/* X(name of the enum, metric, kind, help); counters count up, gauges are set. */
#define METRICS(X)                                                                                 \
	X(LAYERS, "moecald_layers_total", COUNTER, "layers that jobs finished")                        \
	X(FLOPS, "moecald_gemm_flops_total", COUNTER, "floating point operations of finished layers")  \
	X(TOKENS, "moecald_layer_tokens_total", COUNTER, "tokens that went through finished layers")    \
	X(STARTS, "moecald_job_starts_total", COUNTER, "processes started for jobs")                   \
	X(CRASHES, "moecald_job_crashes_total", COUNTER, "processes of jobs that crashed")             \
	X(UPLOADED, "moecald_uploaded_bytes_total", COUNTER, "bytes of uploaded datasets")             \
	X(SCREENED, "moecald_http_screened_total", COUNTER, "requests refused before they were routed") \
	X(TIMED_OUT, "moecald_http_timed_out_total", COUNTER, "connections cut because a request took too long") \
	X(CONNECTIONS, "moecald_http_connections", GAUGE, "open connections")                          \
	X(WATCHERS, "moecald_watchers", GAUGE, "long polls and event streams")                         \
	X(RUNNING, "moecald_jobs_running", GAUGE, "jobs with a process")                               \
	X(MEMORY_BUDGET, "moecald_memory_budget_bytes", GAUGE, "memory that running jobs may plan for") \
	X(MEMORY_GRANTED, "moecald_memory_granted_bytes", GAUGE, "memory planned for running jobs")    \
	X(STATE_FREE, "moecald_state_free_bytes", GAUGE, "free bytes on the disk of the state folder") \
	X(QUEUE_OLDEST, "moecald_queue_oldest_seconds", GAUGE, "age of the job that has waited longest") \
	X(HEARTBEAT, "moecald_runner_heartbeat_seconds", GAUGE, "age of the runner's last sign of life")
enum metric {
#define X(id, name, kind, help) METRIC_##id,
	METRICS(X)
#undef X
	METRIC_COUNT
};

#define HISTOGRAMS(X)                                                                              \
	X(JOB, "moecald_job_seconds", "from the first start of a job to its end", 1, 10, 60, 300, 1800, 7200, 28800) \
	X(LAYER, "moecald_layer_seconds", "one layer of a job", 0.01, 0.1, 1, 10, 60, 300, 1800)       \
	X(COMMIT, "moecald_store_commit_seconds", "one transaction of the store", 0.0005, 0.001, 0.005, 0.02, 0.1, 0.5, 2) \
	X(PLAN, "moecald_plan_seconds", "one plan or registration", 0.01, 0.05, 0.2, 1, 5, 30, 120)
enum histogram {
#define X(id, name, help, ...) HISTOGRAM_##id,
	HISTOGRAMS(X)
#undef X
	HISTOGRAM_COUNT
};

struct metrics;
struct metrics *metrics_new(struct mc_error *err) MC_CHECKED;
void metrics_free(struct metrics *metrics);

void metrics_add(struct metrics *metrics, enum metric metric, uint64_t count);
void metrics_set(struct metrics *metrics, enum metric metric, double value);
void metrics_observe(struct metrics *metrics, enum histogram histogram, double seconds);
/* moecald_http_requests_total{route,method,code} and moecald_http_request_seconds{route} (buckets
 * 0.001 .. 60). route is the pattern, a static string; "" for requests without one, shown as
 * "none". At most 64 routes and 32 codes a route. */
void metrics_http(struct metrics *metrics, const char *route, const char *method, unsigned status, double seconds);
/* moecald_jobs_finished_total{state,reason}; reason is a static code, "" for none. */
void metrics_job_finished(struct metrics *metrics, const char *state, const char *reason);
/* moecald_jobs{state}: set before rendering; index of the state and its name. */
void metrics_set_jobs(struct metrics *metrics, const char *state, uint64_t count);
/* moecald_build_info labels; values are escaped. */
void metrics_set_build(struct metrics *metrics, const char *version, const char *kernel);
/* Everything plus process_cpu_seconds_total, process_resident_memory_bytes, process_open_fds,
 * process_max_fds, process_start_time_seconds. */
bool metrics_render(struct metrics *metrics, struct mc_buf *out, struct mc_error *err) MC_CHECKED;

#endif
