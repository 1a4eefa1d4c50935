/*
 * metrics.c - counters, gauges and histograms, and the text of them that Prometheus scrapes
 *
 * Counters and gauges are atomic; histograms and everything with labels is under one mutex. All
 * tables have a size: what does not fit counts in a row called "other".
 */
#include "metrics.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "moecal/alloc.h"

#define ROUTES 64
#define CODES 32 /* of one route */
#define STATES 16
#define REASONS 64 /* pairs of a state and a reason */
#define LIMITS 10  /* of the longest histogram */
#define LABEL_SIZE 128
#define NUMBER_SIZE 32
#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define OTHER "other"

enum kind { COUNTER, GAUGE };
static const struct {
	const char *name, *help;
	enum kind kind;
} plain[] = {
#define X(id, name, kind, help) {name, help, kind},
    METRICS(X)
#undef X
};

#define X(id, name, help, ...) static const double limits_##id[] = {__VA_ARGS__};
HISTOGRAMS(X)
#undef X
static const double limits_http[] = {0.001, 0.005, 0.02, 0.1, 0.5, 1, 2.5, 10, 30, 60};
#define X(id, name, help, ...)                                                                     \
	_Static_assert(COUNT(limits_##id) <= LIMITS, "a tally has room for the limits of " name);
HISTOGRAMS(X)
#undef X
_Static_assert(COUNT(limits_http) <= LIMITS, "a tally has room for the limits of requests");

struct scale {
	const char *name, *help;
	const double *limits; /* a value that is one of them is below it */
	size_t count;
};
static const struct scale scales[] = {
#define X(id, name, help, ...) {name, help, limits_##id, COUNT(limits_##id)},
    HISTOGRAMS(X)
#undef X
};
static const struct scale http_scale = {
    "moecald_http_request_seconds", "one request, by its route", limits_http, COUNT(limits_http)};

struct tally {
	uint64_t buckets[LIMITS + 1]; /* not cumulative; the last one of the scale is +Inf */
	double sum;
};

static const char *const methods[] = {"GET", "HEAD", "POST", "DELETE", "OTHER"};
#define METHODS COUNT(methods)

struct code {
	unsigned status;
	uint64_t counts[METHODS];
};
struct route_row {
	const char *route; /* a static string */
	struct code codes[CODES + 1];
	size_t codes_used;
	struct tally tally;
};
struct job_rows {
	size_t used, most; /* rows[most] is the one for the rest */
	struct job_rows_row {
		char state[LABEL_SIZE], reason[LABEL_SIZE];
		uint64_t count;
	} rows[REASONS + 1];
};

struct metrics {
	_Atomic uint64_t counters[METRIC_COUNT];
	_Atomic double gauges[METRIC_COUNT];
	double started;       /* seconds since 1970; fixed, or every scrape looked like a restart */
	pthread_mutex_t lock; /* everything below */
	struct tally tallies[HISTOGRAM_COUNT];
	struct route_row routes[ROUTES + 1];
	size_t routes_used;
	struct job_rows jobs, finished;
	bool has_build;
	char version[LABEL_SIZE], kernel[LABEL_SIZE];
};

/* --- this process ------------------------------------------------------------------------------
 */

/* The start of a file of /proc/self as a string. */
static bool read_self(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	ssize_t n = read(fd, text, size - 1);
	close(fd);
	text[n > 0 ? n : 0] = '\0';
	return n > 0;
}

static double clock_seconds(clockid_t clock)
{
	struct timespec now;
	return clock_gettime(clock, &now) == 0 ? (double)now.tv_sec + (double)now.tv_nsec / 1e9 : 0;
}

/* Without /proc/stat and /proc/uptime: ProcSubset=pid hides them. */
static double start_time(void)
{
	char text[1024];
	double age = 0;
	if (read_self("/proc/self/stat", text, sizeof(text))) {
		/* the name (field 2) may hold anything but ends at the last parenthesis */
		const char *at = strrchr(text, ')');
		for (int field = 2; at && field < 22; field++)
			at = strchr(at + 1, ' ');
		if (at)
			age = clock_seconds(CLOCK_BOOTTIME) -
			      (double)strtoull(at, NULL, 10) / (double)sysconf(_SC_CLK_TCK);
	}
	if (!(age >= 0))
		age = 0; /* odd clocks: then it started now, which is nearly so */
	return round((clock_seconds(CLOCK_REALTIME) - age) * 100) / 100;
}

static bool resident_bytes(double *ret)
{
	char text[256];
	const char *second;
	if (!read_self("/proc/self/statm", text, sizeof(text)) || !(second = strchr(text, ' ')))
		return false;
	*ret = (double)strtoull(second, NULL, 10) * (double)sysconf(_SC_PAGESIZE);
	return true;
}

static double most_fds(void)
{
	struct rlimit limit;
	if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY)
		return INFINITY;
	return (double)limit.rlim_cur;
}

static bool open_fds(double *ret)
{
	DIR *dir = opendir("/proc/self/fd");
	size_t count = 0;
	if (!dir) {
		*ret = most_fds(); /* the one figure that must not be missing when they ran out */
		return errno == EMFILE && isfinite(*ret);
	}
	for (const struct dirent *entry; (entry = readdir(dir)) != NULL;)
		count += entry->d_name[0] != '.';
	closedir(dir);
	*ret = (double)(count > 0 ? count - 1 : 0); /* without that of the folder itself */
	return true;
}

/* --- counting ----------------------------------------------------------------------------------
 */

struct metrics *metrics_new(struct mc_error *err)
{
	struct metrics *metrics = mc_alloc(1, sizeof(*metrics), "metrics", err);
	if (!metrics)
		return NULL;
	pthread_mutex_init(&metrics->lock, NULL);
	metrics->started = start_time();
	metrics->jobs.most = STATES;
	metrics->finished.most = REASONS;
	return metrics;
}

void metrics_free(struct metrics *metrics)
{
	if (!metrics)
		return;
	pthread_mutex_destroy(&metrics->lock);
	free(metrics);
}

void metrics_add(struct metrics *metrics, enum metric metric, uint64_t count)
{
	mc_assert(plain[metric].kind == COUNTER);
	atomic_fetch_add_explicit(&metrics->counters[metric], count, memory_order_relaxed);
}

void metrics_set(struct metrics *metrics, enum metric metric, double value)
{
	mc_assert(plain[metric].kind == GAUGE);
	if (isfinite(value))
		atomic_store_explicit(&metrics->gauges[metric], value, memory_order_relaxed);
}

/* One value that is no number would spoil the sum for good; a clock set back gives negative ones.
 */
static void observe(struct tally *tally, const struct scale *scale, double seconds)
{
	size_t i = 0;
	if (!isfinite(seconds))
		return;
	if (seconds < 0)
		seconds = 0;
	while (i < scale->count && seconds > scale->limits[i])
		i++;
	tally->buckets[i]++;
	tally->sum += seconds;
}

void metrics_observe(struct metrics *metrics, enum histogram histogram, double seconds)
{
	pthread_mutex_lock(&metrics->lock);
	observe(&metrics->tallies[histogram], &scales[histogram], seconds);
	pthread_mutex_unlock(&metrics->lock);
}

static struct route_row *find_route(struct metrics *metrics, const char *route)
{
	size_t i = 0;
	while (i < metrics->routes_used && strcmp(metrics->routes[i].route, route) != 0)
		i++;
	struct route_row *row = &metrics->routes[i < ROUTES ? i : ROUTES];
	if (!row->route) {
		row->route = i < ROUTES ? route : OTHER;
		row->codes[row->codes_used++].status = 500;
		metrics->routes_used += i < ROUTES;
	}
	return row;
}

static struct code *find_code(struct route_row *row, unsigned status)
{
	size_t i = 0;
	while (i < row->codes_used && row->codes[i].status != status)
		i++;
	if (i == row->codes_used && i < CODES)
		row->codes[row->codes_used++].status = status;
	return &row->codes[i];
}

static size_t find_method(const char *method)
{
	size_t i = 0;
	while (i < METHODS - 1 && strcmp(methods[i], method) != 0)
		i++;
	return i;
}

void metrics_http(
    struct metrics *metrics, const char *route, const char *method, unsigned status, double seconds)
{
	size_t column = find_method(method);
	pthread_mutex_lock(&metrics->lock);
	struct route_row *row = find_route(metrics, route[0] != '\0' ? route : "none");
	find_code(row, status)->counts[column]++;
	observe(&row->tally, &http_scale, seconds);
	pthread_mutex_unlock(&metrics->lock);
}

/* What fits of a label: what is compared later must be what was kept. */
static void keep_label(char *into, const char *label)
{
	snprintf(into, LABEL_SIZE, "%s", label);
}

/* Copies the labels: the reason of a failed job lives only as long as its process. */
static struct job_rows_row *find_job(struct job_rows *rows, const char *state, const char *reason)
{
	struct job_rows_row key;
	size_t i = 0;
	keep_label(key.state, state);
	keep_label(key.reason, reason);
	while (i < rows->used && (strcmp(rows->rows[i].state, key.state) != 0 ||
				     strcmp(rows->rows[i].reason, key.reason) != 0))
		i++;
	struct job_rows_row *row = &rows->rows[i < rows->most ? i : rows->most];
	if (i == rows->used && i < rows->most) {
		*row = key;
		row->count = 0;
		rows->used++;
	} else if (i == rows->most) {
		keep_label(row->state, OTHER);
		keep_label(row->reason, OTHER);
	}
	return row;
}

void metrics_job_finished(struct metrics *metrics, const char *state, const char *reason)
{
	pthread_mutex_lock(&metrics->lock);
	find_job(&metrics->finished, state, reason)->count++;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_set_jobs(struct metrics *metrics, const char *state, uint64_t count)
{
	pthread_mutex_lock(&metrics->lock);
	find_job(&metrics->jobs, state, "")->count = count;
	pthread_mutex_unlock(&metrics->lock);
}

void metrics_set_build(struct metrics *metrics, const char *version, const char *kernel)
{
	pthread_mutex_lock(&metrics->lock);
	keep_label(metrics->version, version);
	keep_label(metrics->kernel, kernel);
	metrics->has_build = true;
	pthread_mutex_unlock(&metrics->lock);
}

/* --- text --------------------------------------------------------------------------------------
 */

struct label {
	const char *name, *value;
};

static bool put_family(
    struct mc_buf *out, const char *name, const char *type, const char *help, struct mc_error *err)
{
	return mc_buf_addf(out, err, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* Nothing but ASCII: of a label that is not UTF-8 Prometheus refuses the whole scrape. */
static bool put_escaped(struct mc_buf *out, const char *value, struct mc_error *err)
{
	char text[2 * LABEL_SIZE];
	size_t n = 0;
	for (; *value != '\0' && n < sizeof(text) - 2; value++) {
		if (*value == '"' || *value == '\\' || *value == '\n')
			text[n++] = '\\';
		if (*value == '\n')
			text[n++] = 'n';
		else
			text[n++] = *value >= ' ' && *value <= '~' ? *value : '?';
	}
	return mc_buf_add(out, text, n, err);
}

/* name + suffix, labels in braces, a space: the value follows. */
static bool put_series(struct mc_buf *out, const char *name, const char *suffix,
    const struct label *labels, size_t count, struct mc_error *err)
{
	bool ok = mc_buf_addf(out, err, "%s%s", name, suffix);
	for (size_t i = 0; ok && i < count; i++)
		ok = mc_buf_addf(out, err, "%s%s=\"", i == 0 ? "{" : ",", labels[i].name) &&
		     put_escaped(out, labels[i].value, err) && mc_buf_add(out, "\"", 1, err);
	return ok && mc_buf_addf(out, err, "%s", count > 0 ? "} " : " ");
}

/* As few digits as give the number back. */
static bool put_number(struct mc_buf *out, double value, struct mc_error *err)
{
	char text[NUMBER_SIZE] = "+Inf";
	for (int digits = 15; digits <= 17 && isfinite(value); digits++) {
		snprintf(text, sizeof(text), "%.*g", digits, value);
		if (strtod(text, NULL) == value)
			break;
	}
	return mc_buf_addf(out, err, "%s\n", text);
}

static bool put_count(struct mc_buf *out, uint64_t count, struct mc_error *err)
{
	return mc_buf_addf(out, err, "%" PRIu64 "\n", count);
}

static bool put_single(struct mc_buf *out, const char *name, const char *type, const char *help,
    double value, struct mc_error *err)
{
	return put_family(out, name, type, help, err) && put_series(out, name, "", NULL, 0, err) &&
	       put_number(out, value, err);
}

static bool put_plain(struct metrics *metrics, struct mc_buf *out, struct mc_error *err)
{
	bool ok = true;
	for (size_t i = 0; ok && i < METRIC_COUNT; i++) {
		bool counts = plain[i].kind == COUNTER;
		ok = put_family(
			 out, plain[i].name, counts ? "counter" : "gauge", plain[i].help, err) &&
		     put_series(out, plain[i].name, "", NULL, 0, err) &&
		     (counts ? put_count(out, atomic_load(&metrics->counters[i]), err)
			     : put_number(out, atomic_load(&metrics->gauges[i]), err));
	}
	return ok;
}

/* The series of one histogram; route NULL: without that label. */
static bool put_tally(struct mc_buf *out, const struct tally *tally, const struct scale *scale,
    const char *route, struct mc_error *err)
{
	char limit[NUMBER_SIZE];
	struct label labels[2] = {{"route", route}};
	size_t count = route != NULL;
	uint64_t below = 0;
	bool ok = true;

	labels[count] = (struct label){"le", limit};
	for (size_t i = 0; ok && i <= scale->count; i++) {
		below += tally->buckets[i];
		if (i < scale->count)
			snprintf(limit, sizeof(limit), "%g", scale->limits[i]);
		else
			snprintf(limit, sizeof(limit), "+Inf");
		ok = put_series(out, scale->name, "_bucket", labels, count + 1, err) &&
		     put_count(out, below, err);
	}
	return ok && put_series(out, scale->name, "_sum", labels, count, err) &&
	       put_number(out, tally->sum, err) &&
	       put_series(out, scale->name, "_count", labels, count, err) &&
	       put_count(out, below, err);
}

static bool put_histograms(const struct metrics *metrics, struct mc_buf *out, struct mc_error *err)
{
	bool ok = true;
	for (size_t i = 0; ok && i < HISTOGRAM_COUNT; i++)
		ok = put_family(out, scales[i].name, "histogram", scales[i].help, err) &&
		     put_tally(out, &metrics->tallies[i], &scales[i], NULL, err);
	return ok;
}

/* Codes of one route. 500 is there from the first request on: an alert on its increase would not
 * see a series that begins with 1. */
static bool put_codes(struct mc_buf *out, const struct route_row *row, struct mc_error *err)
{
	bool ok = true;
	for (size_t m = 0; ok && m < METHODS; m++) {
		uint64_t all = 0;
		for (size_t i = 0; i <= CODES; i++)
			all += row->codes[i].counts[m];
		for (size_t i = 0; ok && i <= CODES && all > 0; i++) {
			const struct code *code = &row->codes[i];
			char status[NUMBER_SIZE] = OTHER;
			if (code->counts[m] == 0 && code->status != 500)
				continue;
			if (i < CODES)
				snprintf(status, sizeof(status), "%u", code->status);
			struct label labels[] = {
			    {"route", row->route}, {"method", methods[m]}, {"code", status}};
			ok = put_series(out, "moecald_http_requests_total", "", labels,
				 COUNT(labels), err) &&
			     put_count(out, code->counts[m], err);
		}
	}
	return ok;
}

static bool put_http(const struct metrics *metrics, struct mc_buf *out, struct mc_error *err)
{
	bool ok = metrics->routes_used == 0 ||
		  put_family(out, "moecald_http_requests_total", "counter",
		      "requests that were routed, by what was answered", err);
	for (size_t i = 0; ok && i <= ROUTES; i++)
		ok = !metrics->routes[i].route || put_codes(out, &metrics->routes[i], err);
	ok = ok && (metrics->routes_used == 0 ||
		       put_family(out, http_scale.name, "histogram", http_scale.help, err));
	for (size_t i = 0; ok && i <= ROUTES; i++)
		ok = !metrics->routes[i].route || put_tally(out, &metrics->routes[i].tally,
						      &http_scale, metrics->routes[i].route, err);
	return ok;
}

static bool put_jobs(struct mc_buf *out, const struct job_rows *rows, const char *name,
    const char *type, const char *help, size_t labels_used, struct mc_error *err)
{
	bool ok = rows->used == 0 || put_family(out, name, type, help, err);
	for (size_t i = 0; ok && i <= rows->most; i++) {
		const struct job_rows_row *row = &rows->rows[i];
		struct label labels[] = {{"state", row->state}, {"reason", row->reason}};
		ok = row->state[0] == '\0' ||
		     (put_series(out, name, "", labels, labels_used, err) &&
			 put_count(out, row->count, err));
	}
	return ok;
}

static bool put_build(const struct metrics *metrics, struct mc_buf *out, struct mc_error *err)
{
	static const char name[] = "moecald_build_info";
	struct label labels[] = {{"version", metrics->version}, {"kernel", metrics->kernel}};
	return !metrics->has_build ||
	       (put_family(out, name, "gauge", "always 1; what runs, in its labels", err) &&
		   put_series(out, name, "", labels, COUNT(labels), err) && put_count(out, 1, err));
}

static bool put_process(const struct metrics *metrics, struct mc_buf *out, struct mc_error *err)
{
	double bytes, fds;
	return put_single(out, "process_cpu_seconds_total", "counter",
		   "processor time of the service, without its jobs",
		   clock_seconds(CLOCK_PROCESS_CPUTIME_ID), err) &&
	       (!resident_bytes(&bytes) ||
		   put_single(out, "process_resident_memory_bytes", "gauge",
		       "memory of the service, without its jobs", bytes, err)) &&
	       (!open_fds(&fds) || put_single(out, "process_open_fds", "gauge",
				       "open file descriptors", fds, err)) &&
	       put_single(out, "process_max_fds", "gauge", "most file descriptors it may open",
		   most_fds(), err) &&
	       put_single(out, "process_start_time_seconds", "gauge",
		   "start of the service, in seconds since 1970", metrics->started, err);
}

bool metrics_render(struct metrics *metrics, struct mc_buf *out, struct mc_error *err)
{
	if (!put_plain(metrics, out, err))
		return false;
	pthread_mutex_lock(&metrics->lock);
	bool ok = put_build(metrics, out, err) && put_histograms(metrics, out, err) &&
		  put_http(metrics, out, err) &&
		  put_jobs(out, &metrics->jobs, "moecald_jobs", "gauge", "jobs by state", 1, err) &&
		  put_jobs(out, &metrics->finished, "moecald_jobs_finished_total", "counter",
		      "jobs that came to an end, by how and why", 2, err);
	pthread_mutex_unlock(&metrics->lock);
	return ok && put_process(metrics, out, err);
}
