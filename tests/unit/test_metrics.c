/*
 * test_metrics.c - the text that Prometheus scrapes, read back: kinds, buckets, labels, limits
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <ctype.h>
#include <fcntl.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "metrics.h"

/* --- reading -----------------------------------------------------------------------------------
 */

struct scrape {
	struct metrics *metrics;
	struct mc_buf text;
};

static int setup(void **state)
{
	struct scrape *scrape = calloc(1, sizeof(*scrape));
	struct mc_error err;
	mc_error_init(&err);
	mc_buf_init(&scrape->text, (size_t)4 << 20);
	scrape->metrics = metrics_new(&err);
	*state = scrape;
	return scrape->metrics ? 0 : -1;
}

static int teardown(void **state)
{
	struct scrape *scrape = *state;
	metrics_free(scrape->metrics);
	mc_buf_release(&scrape->text);
	free(scrape);
	return 0;
}

/* Names of metrics and labels. */
static size_t name_length(const char *at)
{
	size_t n = 0;
	while (isalnum((unsigned char)at[n]) || at[n] == '_' || at[n] == ':')
		n++;
	assert_true(n > 0 && !isdigit((unsigned char)at[0]));
	return n;
}

/* Past {name="value",...} or nothing. */
static const char *skip_labels(const char *at)
{
	if (*at != '{')
		return at;
	do {
		at++;
		at += name_length(at);
		assert_memory_equal(at, "=\"", 2);
		for (at += 2; *at != '"'; at++) {
			assert_true(*at >= ' ');
			if (*at == '\\') {
				at++;
				assert_non_null(strchr("\\\"n", *at));
			}
		}
		at++;
	} while (*at == ',');
	assert_int_equal(*at, '}');
	return at + 1;
}

struct family {
	char name[128], type[16];
};

/* Whether a sample of this name may stand in this family. */
static bool belongs(const struct family *family, const char *name, size_t length)
{
	static const char *const suffixes[] = {"_bucket", "_sum", "_count"};
	size_t own = strlen(family->name);

	if (length < own || strncmp(name, family->name, own) != 0)
		return false;
	if (strcmp(family->type, "histogram") != 0)
		return length == own;
	for (size_t i = 0; i < 3; i++)
		if (length - own == strlen(suffixes[i]) &&
		    strncmp(name + own, suffixes[i], length - own) == 0)
			return true;
	return false;
}

static void check_family_line(
    const char *line, struct family *family, struct family *seen, size_t *n)
{
	int used = 0;

	if (strncmp(line, "# HELP ", 7) == 0) {
		assert_int_equal(sscanf(line, "# HELP %127s %n", family->name, &used), 1);
		assert_true(line[used] != '\n' && used > 0);
		for (size_t i = 0; i < *n; i++)
			assert_string_not_equal(seen[i].name, family->name);
		family->type[0] = '\0';
		seen[(*n)++] = *family;
		return;
	}
	char name[128];
	assert_int_equal(sscanf(line, "# TYPE %127s %15s", name, family->type), 2);
	assert_string_equal(name, family->name);
	assert_true(strcmp(family->type, "counter") == 0 || strcmp(family->type, "gauge") == 0 ||
		    strcmp(family->type, "histogram") == 0);
	/* a counter, and nothing else, ends in _total */
	size_t length = strlen(name);
	assert_int_equal(length > 6 && strcmp(name + length - 6, "_total") == 0,
	    strcmp(family->type, "counter") == 0);
}

/* Every line is one of the format; HELP, TYPE, samples; no family and no series twice. */
static void check_text(const char *text)
{
	struct family family = {{0}, {0}}, *seen = calloc(256, sizeof(*seen));
	const char **series = calloc(65536, sizeof(*series));
	size_t families = 0, samples = 0, of_family = 1;
	const char *end;

	for (const char *line = text; *line != '\0'; line = end + 1) {
		end = strchr(line, '\n');
		assert_non_null(end);
		if (*line == '#') {
			/* none is empty; TYPE stands between HELP and the first sample */
			assert_true(strncmp(line, "# TYPE", 6) == 0 ? family.type[0] == '\0'
								    : of_family > 0);
			check_family_line(line, &family, seen, &families);
			of_family = 0;
			continue;
		}
		size_t length = name_length(line);
		const char *value = skip_labels(line + length);
		char *rest;
		assert_true(belongs(&family, line, length) && family.type[0] != '\0');
		assert_int_equal(*value, ' ');
		assert_false(isnan(strtod(value + 1, &rest)));
		assert_ptr_equal(rest, end);
		for (size_t i = families == 0 ? 0 : samples - of_family; i < samples; i++)
			assert_true(strncmp(series[i], line, (size_t)(value + 1 - line)) != 0);
		assert_true(samples < 65536);
		series[samples++] = line;
		of_family++;
	}
	assert_true(samples > 0 && of_family > 0);
	free(series);
	free(seen);
}

static const char *render(struct scrape *scrape)
{
	struct mc_error err;
	mc_error_init(&err);
	mc_buf_clear(&scrape->text);
	assert_true(metrics_render(scrape->metrics, &scrape->text, &err));
	check_text(mc_buf_text(&scrape->text));
	return mc_buf_text(&scrape->text);
}

/* The value of a series, written as in the text; -1: it is not there. */
static double value_of(const char *text, const char *series)
{
	size_t length = strlen(series);
	for (const char *line = text; line && *line != '\0';) {
		if (strncmp(line, series, length) == 0 && line[length] == ' ')
			return strtod(line + length, NULL);
		line = strchr(line, '\n');
		line += line != NULL;
	}
	return -1;
}

static size_t lines_with(const char *text, const char *start)
{
	size_t count = 0;
	for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1)
		count += strncmp(line, start, strlen(start)) == 0;
	return count;
}

/* Sum of the samples whose lines begin so. */
static double sum_of(const char *text, const char *start)
{
	double sum = 0;
	for (const char *line = text; *line != '\0'; line = strchr(line, '\n') + 1)
		if (strncmp(line, start, strlen(start)) == 0)
			sum += strtod(skip_labels(line + name_length(line)), NULL);
	return sum;
}

/* --- tests -------------------------------------------------------------------------------------
 */

static void test_fresh(void **state)
{
	static const struct {
		const char *name, *lines;
	} rows[] = {
#define TYPE_COUNTER "counter"
#define TYPE_GAUGE "gauge"
#define X(id, name, kind, help)                                                                    \
	{name, "# HELP " name " " help "\n# TYPE " name " " TYPE_##kind "\n" name " 0\n"},
	    METRICS(X)
#undef X
#define X(id, name, help, ...)                                                                     \
	{name "_sum", "# HELP " name " " help "\n# TYPE " name " histogram\n" name "_bucket{le="   \
		      "\""},
		HISTOGRAMS(X)
#undef X
	};
	const char *text = render(*state);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		assert_non_null(strstr(text, rows[i].lines));
		assert_true(value_of(text, rows[i].name) == 0);
	}
	/* families without rows are left out */
	assert_null(strstr(text, "moecald_http_requests_total"));
	assert_null(strstr(text, "moecald_jobs_finished_total"));
	assert_null(strstr(text, "moecald_build_info"));
}

static void test_counters_and_gauges(void **state)
{
	struct scrape *scrape = *state;
	metrics_add(scrape->metrics, METRIC_LAYERS, 1);
	metrics_add(scrape->metrics, METRIC_LAYERS, 2);
	metrics_add(scrape->metrics, METRIC_FLOPS, UINT64_C(12345678901234567890));
	metrics_set(scrape->metrics, METRIC_HEARTBEAT, 7);
	metrics_set(scrape->metrics, METRIC_HEARTBEAT, 0.1);
	metrics_set(scrape->metrics, METRIC_STATE_FREE, 137438953472.0);
	metrics_set(scrape->metrics, METRIC_QUEUE_OLDEST, 2);
	metrics_set(scrape->metrics, METRIC_QUEUE_OLDEST, NAN);
	metrics_set(scrape->metrics, METRIC_QUEUE_OLDEST, INFINITY);
	const char *text = render(scrape);
	assert_non_null(strstr(text, "\nmoecald_layers_total 3\n"));
	assert_non_null(strstr(text, "\nmoecald_gemm_flops_total 12345678901234567890\n"));
	assert_non_null(strstr(text, "\nmoecald_runner_heartbeat_seconds 0.1\n"));
	assert_non_null(strstr(text, "\nmoecald_state_free_bytes 137438953472\n"));
	assert_non_null(strstr(text, "\nmoecald_queue_oldest_seconds 2\n"));
}

static void test_histogram(void **state)
{
	struct scrape *scrape = *state;
	static const double seconds[] = {0.0005, 0.0004, 0.00051, 0.1, 0.10001, 2, 3};
	for (size_t i = 0; i < sizeof(seconds) / sizeof(seconds[0]); i++)
		metrics_observe(scrape->metrics, HISTOGRAM_COMMIT, seconds[i]);
	/* a limit is inside; what follows counts the ones before, too */
	const char *text = render(scrape);
	assert_non_null(strstr(text, "# TYPE moecald_store_commit_seconds histogram\n"
				     "moecald_store_commit_seconds_bucket{le=\"0.0005\"} 2\n"
				     "moecald_store_commit_seconds_bucket{le=\"0.001\"} 3\n"
				     "moecald_store_commit_seconds_bucket{le=\"0.005\"} 3\n"
				     "moecald_store_commit_seconds_bucket{le=\"0.02\"} 3\n"
				     "moecald_store_commit_seconds_bucket{le=\"0.1\"} 4\n"
				     "moecald_store_commit_seconds_bucket{le=\"0.5\"} 5\n"
				     "moecald_store_commit_seconds_bucket{le=\"2\"} 6\n"
				     "moecald_store_commit_seconds_bucket{le=\"+Inf\"} 7\n"
				     "moecald_store_commit_seconds_sum "));
	assert_true(value_of(text, "moecald_store_commit_seconds_count") == 7);
	assert_true(fabs(value_of(text, "moecald_store_commit_seconds_sum") - 5.20142) < 1e-9);
	assert_true(value_of(text, "moecald_job_seconds_bucket{le=\"28800\"}") == 0);
}

static void test_odd_observations(void **state)
{
	struct scrape *scrape = *state;
	metrics_observe(scrape->metrics, HISTOGRAM_PLAN, NAN);
	metrics_observe(scrape->metrics, HISTOGRAM_PLAN, INFINITY);
	metrics_observe(scrape->metrics, HISTOGRAM_PLAN, -3);
	const char *text = render(scrape);
	assert_true(value_of(text, "moecald_plan_seconds_bucket{le=\"0.01\"}") == 1);
	assert_true(value_of(text, "moecald_plan_seconds_count") == 1);
	assert_true(value_of(text, "moecald_plan_seconds_sum") == 0);
}

static void test_http(void **state)
{
	struct scrape *scrape = *state;
	char same[] = "/v1/jobs/{id}";
	metrics_http(scrape->metrics, "/v1/jobs/{id}", "GET", 200, 0.001);
	metrics_http(scrape->metrics, same, "GET", 200, 0.25);
	metrics_http(scrape->metrics, "/v1/jobs/{id}", "DELETE", 404, 61);
	metrics_http(scrape->metrics, "", "BREW", 418, 0);
	const char *text = render(scrape);
#define REQUESTS "moecald_http_requests_total{route="
	assert_true(value_of(text, REQUESTS "\"/v1/jobs/{id}\",method=\"GET\",code=\"200\"}") == 2);
	assert_true(
	    value_of(text, REQUESTS "\"/v1/jobs/{id}\",method=\"DELETE\",code=\"404\"}") == 1);
	assert_true(
	    value_of(text, REQUESTS "\"/v1/jobs/{id}\",method=\"GET\",code=\"404\"}") == -1);
	assert_true(value_of(text, REQUESTS "\"none\",method=\"OTHER\",code=\"418\"}") == 1);
	/* an alert on errors needs the series before the first of them */
	assert_true(value_of(text, REQUESTS "\"/v1/jobs/{id}\",method=\"GET\",code=\"500\"}") == 0);
	assert_int_equal(lines_with(text, REQUESTS), 6);
#define SECONDS "moecald_http_request_seconds"
#define BUCKET SECONDS "_bucket{route=\"/v1/jobs/{id}\",le="
	assert_true(value_of(text, BUCKET "\"0.001\"}") == 1);
	assert_true(value_of(text, BUCKET "\"0.1\"}") == 1);
	assert_true(value_of(text, BUCKET "\"0.5\"}") == 2);
	assert_true(value_of(text, BUCKET "\"60\"}") == 2);
	assert_true(value_of(text, BUCKET "\"+Inf\"}") == 3);
	assert_true(value_of(text, SECONDS "_count{route=\"/v1/jobs/{id}\"}") == 3);
	assert_true(value_of(text, SECONDS "_sum{route=\"/v1/jobs/{id}\"}") == 61.251);
	assert_true(value_of(text, SECONDS "_count{route=\"none\"}") == 1);
}

static void test_jobs(void **state)
{
	struct scrape *scrape = *state;
	char reason[32] = "corrupt"; /* the caller's, and gone afterwards */
	metrics_job_finished(scrape->metrics, "succeeded", "");
	metrics_job_finished(scrape->metrics, "failed", reason);
	strcpy(reason, "no-space");
	metrics_job_finished(scrape->metrics, "failed", reason);
	strcpy(reason, "corrupt");
	metrics_job_finished(scrape->metrics, "failed", reason);
	strcpy(reason, "?");
	metrics_set_jobs(scrape->metrics, "queued", 5);
	metrics_set_jobs(scrape->metrics, "failed", 0);
	metrics_set_jobs(scrape->metrics, "queued", 3);
	const char *text = render(scrape);
#define FINISHED "moecald_jobs_finished_total{state="
	assert_true(value_of(text, FINISHED "\"succeeded\",reason=\"\"}") == 1);
	assert_true(value_of(text, FINISHED "\"failed\",reason=\"corrupt\"}") == 2);
	assert_true(value_of(text, FINISHED "\"failed\",reason=\"no-space\"}") == 1);
	assert_int_equal(lines_with(text, FINISHED), 3);
	assert_true(value_of(text, "moecald_jobs{state=\"queued\"}") == 3);
	assert_true(value_of(text, "moecald_jobs{state=\"failed\"}") == 0);
	assert_int_equal(lines_with(text, "moecald_jobs{"), 2);
}

static void test_escaping(void **state)
{
	struct scrape *scrape = *state;
	char lengthy[1000];
	metrics_set_build(scrape->metrics, "1\"2\\3\n4\\n", "a\tb\xc3\x28{},=");
	assert_non_null(strstr(render(scrape),
	    "\nmoecald_build_info{version=\"1\\\"2\\\\3\\n4\\\\n\",kernel=\"a?b?({},=\"} 1\n"));
	memset(lengthy, '"', sizeof(lengthy) - 1);
	lengthy[sizeof(lengthy) - 1] = '\0';
	metrics_set_build(scrape->metrics, "", lengthy);
	metrics_job_finished(scrape->metrics, "failed", lengthy);
	metrics_job_finished(scrape->metrics, "failed", lengthy);
	/* cut, and still one row */
	const char *text = render(scrape);
	assert_int_equal(lines_with(text, FINISHED), 1);
	assert_true(sum_of(text, FINISHED) == 2);
	assert_non_null(strstr(text, "\nmoecald_build_info{version=\"\",kernel=\"\\\"\\\""));
}

static void test_limits(void **state)
{
	struct scrape *scrape = *state;
	static char routes[200][16], reasons[200][16];
	for (int i = 0; i < 200; i++) {
		snprintf(routes[i], sizeof(routes[i]), "/%d", i);
		snprintf(reasons[i], sizeof(reasons[i]), "r%d", i);
	}
	for (unsigned status = 100; status < 600; status++)
		metrics_http(scrape->metrics, routes[0], "GET", status, 0);
	for (int round = 0; round < 2; round++)
		for (int i = 0; i < 200; i++) {
			metrics_http(scrape->metrics, routes[i], "POST", 202, 0);
			metrics_job_finished(scrape->metrics, "failed", reasons[i]);
			metrics_set_jobs(scrape->metrics, reasons[i], 1);
		}
	const char *text = render(scrape);
	/* 64 routes and the rest; of the first one 32 codes and the rest */
	assert_int_equal(lines_with(text, SECONDS "_count{"), 65);
	assert_true(value_of(text, SECONDS "_count{route=\"other\"}") == 2 * (200 - 64));
	assert_true(
	    value_of(text, REQUESTS "\"other\",method=\"POST\",code=\"202\"}") == 2 * (200 - 64));
	assert_int_equal(lines_with(text, REQUESTS "\"/0\",method=\"GET\""), 33);
	assert_true(value_of(text, REQUESTS "\"/0\",method=\"GET\",code=\"500\"}") == 1);
	assert_true(value_of(text, REQUESTS "\"/0\",method=\"GET\",code=\"other\"}") == 500 - 32);
	assert_true(sum_of(text, REQUESTS) == 500 + 400);
	assert_int_equal(lines_with(text, FINISHED), 65);
	assert_true(value_of(text, FINISHED "\"other\",reason=\"other\"}") == 2 * (200 - 64));
	assert_int_equal(lines_with(text, "moecald_jobs{"), 17);
}

static void test_full_buffer(void **state)
{
	struct scrape *scrape = *state;
	struct mc_buf small;
	struct mc_error err;
	bool ok = false;
	metrics_set_build(scrape->metrics, "1", "x");
	metrics_http(scrape->metrics, "/", "GET", 200, 0);
	metrics_job_finished(scrape->metrics, "failed", "corrupt");
	metrics_set_jobs(scrape->metrics, "failed", 1);
	/* wherever it ends it says so, and the next one works: the lock is free */
	for (size_t maximum = 1; !ok; maximum += 13) {
		assert_true(maximum < 1 << 16);
		mc_error_init(&err);
		mc_buf_init(&small, maximum);
		ok = metrics_render(scrape->metrics, &small, &err);
		assert_int_equal(err.code, ok ? MC_OK : MC_INVALID);
		mc_buf_release(&small);
	}
	render(scrape);
	metrics_free(NULL);
}

#define THREADS 8
#define TIMES 10000

static void *count(void *arg)
{
	struct metrics *metrics = arg;
	for (int i = 0; i < TIMES; i++) {
		metrics_add(metrics, METRIC_TOKENS, 3);
		metrics_set(metrics, METRIC_WATCHERS, i);
		metrics_observe(metrics, HISTOGRAM_LAYER, i % 2 ? 0.5 : 64);
		metrics_http(metrics, i % 2 ? "/a" : "/b", "GET", 200, 0.25);
		metrics_job_finished(metrics, "canceled", "");
		metrics_set_jobs(metrics, "queued", (uint64_t)i);
	}
	return NULL;
}

static void test_threads(void **state)
{
	struct scrape *scrape = *state;
	pthread_t threads[THREADS];
	for (size_t i = 0; i < THREADS; i++)
		assert_int_equal(pthread_create(&threads[i], NULL, count, scrape->metrics), 0);
	for (int i = 0; i < 20; i++)
		render(scrape);
	for (size_t i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	const char *text = render(scrape);
	const double all = (double)THREADS * TIMES;
	assert_true(value_of(text, "moecald_layer_tokens_total") == 3 * all);
	assert_true(value_of(text, "moecald_watchers") == TIMES - 1);
	assert_true(value_of(text, "moecald_layer_seconds_count") == all);
	assert_true(value_of(text, "moecald_layer_seconds_bucket{le=\"60\"}") == all / 2);
	assert_true(value_of(text, "moecald_layer_seconds_sum") == all / 2 * 64.5);
	assert_true(value_of(text, REQUESTS "\"/a\",method=\"GET\",code=\"200\"}") == all / 2);
	assert_true(value_of(text, SECONDS "_count{route=\"/b\"}") == all / 2);
	assert_true(value_of(text, SECONDS "_sum{route=\"/b\"}") == all / 8);
	assert_true(value_of(text, FINISHED "\"canceled\",reason=\"\"}") == all);
	assert_true(value_of(text, "moecald_jobs{state=\"queued\"}") == TIMES - 1);
}

static void test_process(void **state)
{
	struct scrape *scrape = *state;
	struct rlimit limit;
	double now = (double)time(NULL);
	const char *text = render(scrape);
	double started = value_of(text, "process_start_time_seconds");
	double fds = value_of(text, "process_open_fds");
	double cpu = value_of(text, "process_cpu_seconds_total");
	double resident = value_of(text, "process_resident_memory_bytes");

	assert_true(started > now - 600 && started < now + 2);
	assert_true(cpu > 0 && cpu < 3600);
	assert_true(resident > 1 << 16 && resident < (double)((uint64_t)1 << 40));
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	if (limit.rlim_cur != RLIM_INFINITY)
		assert_true(value_of(text, "process_max_fds") == (double)limit.rlim_cur);
	int more = open("/dev/null", O_RDONLY | O_CLOEXEC);
	assert_true(more >= 0 && fds >= 1);
	text = render(scrape);
	assert_true(value_of(text, "process_open_fds") == fds + 1);
	assert_true(value_of(text, "process_cpu_seconds_total") >= cpu);
	/* or every scrape would look like a restart */
	assert_true(value_of(text, "process_start_time_seconds") == started);
	close(more);
	assert_true(value_of(render(scrape), "process_open_fds") == fds);
}

/* Out of descriptors, the figure that says so is still there. */
static void test_no_fds_left(void **state)
{
	struct scrape *scrape = *state;
	struct rlimit limit, none;
	assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
	none = limit;
	none.rlim_cur = 3;
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &none), 0);
	int taken = open("/dev/null", O_RDONLY | O_CLOEXEC); /* one of 0 to 2 may be closed */
	const char *text = render(scrape);
	assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
	if (taken >= 0)
		close(taken);
	assert_true(value_of(text, "process_open_fds") == 3);
	assert_true(value_of(text, "process_max_fds") == 3);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
	    TEST(test_fresh),
	    TEST(test_counters_and_gauges),
	    TEST(test_histogram),
	    TEST(test_odd_observations),
	    TEST(test_http),
	    TEST(test_jobs),
	    TEST(test_escaping),
	    TEST(test_limits),
	    TEST(test_full_buffer),
	    TEST(test_threads),
	    TEST(test_process),
	    TEST(test_no_fds_left),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
