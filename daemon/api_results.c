/*
 * api_results.c - what a job found out: coverage, statistics, parameters, verdict, files
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "api.h"
#include "artifacts.h"
#include "state.h"

#include "moecal/alloc.h"
#include "moecal/file.h"
#include "moecal/model.h"
#include "moecal/parameters.h"
#include "moecal/statistics.h"

#define PARAMETERS_FILE "quantization.safetensors"
#define PAGE_ELEMENTS ((uint64_t)1 << 18) /* numbers of one page of parameters */

/* A job and its folder, as a handler of results needs them. */
struct results {
	struct job_row job;
	char *folder; /* owned */
};

static void results_release(struct results *results)
{
	job_row_release(&results->job);
	free(results->folder);
}

/* finished: the job must have ended with results. Replies otherwise. */
static bool results_open(struct results *results, struct service *service,
    const struct http_request *request, bool finished, struct http_response *response)
{
	struct mc_error err;

	*results = (struct results){0};
	mc_error_init(&err);
	if (!api_job(service, request, &results->job, response))
		return false;
	results->folder =
	    state_job_path(service->settings.state, results->job.id, "folder", &err);
	if (results->folder == NULL) {
		problem_reply_error(response, &err);
	} else if (!finished || folder_is_finished(results->folder)) {
		if (!finished || job_state_is_final(results->job.state))
			return true;
		problem_reply(response, PROBLEM_NOT_FINISHED, "the job is %s; wait for its end",
		    job_state_name(results->job.state));
	} else if (job_state_is_final(results->job.state)) {
		problem_reply(response, PROBLEM_NOT_FOUND, "the job %s and left no results",
		    results->job.state == JOB_CANCELED ? "was canceled" : "failed");
	} else {
		problem_reply(response, PROBLEM_NOT_FINISHED, "the job is %s; wait for its end",
		    job_state_name(results->job.state));
	}
	results_release(results);
	return false;
}

/* --- what is learned so far -------------------------------------------------------------------- */

/* The statistics of a job, also while it runs; *ret NULL without an error: there are none yet. */
static bool open_statistics(
    const struct results *results, struct mc_statistics **ret, struct mc_error *err)
{
	char *path = mc_format(err, "%s/calibration.db", results->folder);
	bool there = path != NULL && mc_file_exists(path);

	*ret = there ? mc_statistics_open(path, true, err) : NULL;
	/* a file that is just being made has no tables yet */
	if (*ret == NULL && err->code == MC_UNSUPPORTED && !job_state_is_final(results->job.state))
		mc_error_init(err);
	free(path);
	return err->code == MC_OK;
}

static struct mc_json *no_coverage(struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();

	if (mc_json_set(root, "layers", mc_json_new_array(), err) &&
	    mc_json_set(root, "starved_total", mc_json_new_integer(0), err) &&
	    mc_json_set(root, "floor_tokens", mc_json_new_integer(0), err))
		return root;
	mc_json_free(root);
	return NULL;
}

void job_coverage(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct results results;
	struct mc_statistics *statistics;
	struct mc_json *coverage = NULL;
	char *floor = NULL;
	struct mc_error err;

	if (!results_open(&results, service, request, false, response))
		return;
	mc_error_init(&err);
	if (open_statistics(&results, &statistics, &err)) {
		if (statistics == NULL)
			coverage = no_coverage(&err);
		else if (mc_statistics_get(statistics, "floor_tokens", &floor, &err))
			coverage = mc_statistics_coverage_json(
			    statistics, floor != NULL ? strtoull(floor, NULL, 10) : 1, &err);
		mc_statistics_close(statistics);
	}
	free(floor);
	api_reply(request, response, coverage, &err);
	results_release(&results);
}

static bool index_of(const struct http_request *request, const char *name, size_t *ret,
    struct http_response *response)
{
	uint64_t value;

	*ret = MC_NO_INDEX;
	if (http_query(request, name) == NULL)
		return true;
	if (!http_query_count(request, name, 0, 1000000, 0, &value, response))
		return false;
	*ret = (size_t)value;
	return true;
}

void job_statistics(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct mc_module_filter filter = {.prefix = http_query(request, "module")};
	struct results results;
	struct mc_statistics *statistics;
	struct mc_json *rows = NULL;
	struct page page;
	char next[24] = "";
	struct mc_error err;

	if (!index_of(request, "layer", &filter.layer, response) ||
	    !index_of(request, "expert", &filter.expert, response) ||
	    !page_read(&page, request, response, "statistics %s %zu %zu %s", request->parameters[0],
		filter.layer, filter.expert, filter.prefix != NULL ? filter.prefix : "") ||
	    !results_open(&results, service, request, false, response))
		return;
	mc_error_init(&err);
	filter.skip = strtoull(page.key, NULL, 10);
	filter.limit = page.limit;
	if (open_statistics(&results, &statistics, &err)) {
		rows = statistics == NULL ? mc_json_new_array()
					  : mc_statistics_modules_json(statistics, &filter, &err);
		mc_statistics_close(statistics);
	}
	/* a full page may be followed by an empty one; that is cheaper than counting */
	if (rows != NULL && mc_json_size(rows) == page.limit)
		snprintf(next, sizeof next, "%llu", (unsigned long long)(filter.skip + page.limit));
	if (rows != NULL)
		page_reply(&page, request, response, "modules", rows, next);
	else
		api_reply_error(response, &err);
	results_release(&results);
}

/* --- results ----------------------------------------------------------------------------------- */

void job_verdict(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct results results;
	struct mc_error err;

	if (!results_open(&results, service, request, true, response))
		return;
	mc_error_init(&err);
	api_reply(request, response, folder_json(results.folder, "verdict.json", &err), &err);
	results_release(&results);
}

static void reply_file(struct service *service, const struct results *results, const char *path,
    const char *type, struct http_request *request, struct http_response *response)
{
	char sha256[65];
	uint64_t bytes, size;
	int fd;
	struct mc_error err;

	mc_error_init(&err);
	if (!store_artifact_get(service->store, results->job.seq, path, sha256, &bytes, &err) ||
	    !folder_open(results->folder, path, &fd, &size, &err)) {
		api_reply_error(response, &err);
		return;
	}
	if (size != bytes) {
		close(fd);
		log_say(LOG_LEVEL_ERROR, results->job.id, request->id,
		    "%s has %llu bytes, it had %llu when the job ended", path,
		    (unsigned long long)size, (unsigned long long)bytes);
		problem_reply(response, PROBLEM_INTERNAL, "%s was changed after the job ended", path);
		return;
	}
	http_reply_file(request, response, fd, bytes, type, sha256);
	http_set_header(response, "Cache-Control", "private, max-age=31536000, immutable");
}

static void reply_parameters(const struct results *results, const struct http_request *request,
    struct http_response *response)
{
	const char *module = http_query(request, "module");
	struct page page;
	struct mc_error err;
	char next[512] = "";

	if (!page_read(&page, request, response, "quantization %s %s", results->job.id,
		module != NULL ? module : ""))
		return;
	mc_error_init(&err);
	char *path = mc_format(&err, "%s/" PARAMETERS_FILE, results->folder);
	struct mc_json *root =
	    path == NULL ? NULL
			 : mc_parameters_json(path, module != NULL ? module : "",
			       page.key[0] != '\0' ? page.key : NULL, page.limit, PAGE_ELEMENTS, &err);
	free(path);
	if (root == NULL) {
		api_reply_error(response, &err);
		return;
	}
	const struct mc_json *cursor = mc_json_get(root, "next_cursor");
	if (!mc_json_is_null(cursor))
		snprintf(next, sizeof next, "%s", mc_json_string(cursor, NULL));
	struct mc_json *list = mc_json_copy(mc_json_get(root, "parameters"), &err);
	mc_json_free(root);
	page_reply(&page, request, response, "parameters", list, next);
}

void job_quantization(
    struct service *service, struct http_request *request, struct http_response *response)
{
	static const char *const types[] = {"application/json", "application/octet-stream", NULL};
	int chosen = http_accept(request, types);
	struct results results;

	if (chosen < 0) {
		problem_reply(response, PROBLEM_ACCEPT,
		    "parameters come as application/json, or whole as application/octet-stream");
		return;
	}
	if (!results_open(&results, service, request, true, response))
		return;
	if (chosen == 1)
		reply_file(service, &results, PARAMETERS_FILE, types[1], request, response);
	else
		reply_parameters(&results, request, response);
	http_set_header(response, "Vary", "Accept");
	results_release(&results);
}

/* --- artifacts --------------------------------------------------------------------------------- */

/* {"self"} for each; the list as it goes out, and the path to go on after. */
static struct mc_json *with_links(const struct mc_json *artifacts, const char *id, uint64_t limit,
    char next[512], struct mc_error *err)
{
	struct mc_json *list = mc_json_new_array();
	bool ok = list != NULL;

	for (size_t i = 0; ok && i < mc_json_size(artifacts) && i < limit; i++) {
		struct mc_json *one = mc_json_copy(mc_json_at(artifacts, i), err);
		const char *path = mc_json_string(mc_json_get(one, "path"), NULL);
		ok = mc_json_append(list, one, err) &&
		     api_link(one, "self", err, "/v1/jobs/%s/artifacts/%s", id, path);
		if (ok && mc_json_size(artifacts) > limit)
			snprintf(next, 512, "%s", path);
	}
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

void job_artifacts(
    struct service *service, struct http_request *request, struct http_response *response)
{
	const char *prefix = http_query(request, "prefix");
	struct job_row job;
	struct page page;
	char next[512] = "";
	struct mc_error err;

	if (!api_job(service, request, &job, response))
		return;
	mc_error_init(&err);
	if (!job_state_is_final(job.state)) {
		problem_reply(response, PROBLEM_NOT_FINISHED, "the job is %s; wait for its end",
		    job_state_name(job.state));
	} else if (page_read(&page, request, response, "artifacts %s %s", job.id,
		       prefix != NULL ? prefix : "")) {
		struct mc_json *rows = store_artifacts(service->store, job.seq, prefix,
		    page.key[0] != '\0' ? page.key : NULL, page.limit + 1, &err);
		struct mc_json *list =
		    rows == NULL ? NULL : with_links(rows, job.id, page.limit, next, &err);
		mc_json_free(rows);
		if (list != NULL)
			page_reply(&page, request, response, "artifacts", list, next);
		else
			api_reply_error(response, &err);
	}
	job_row_release(&job);
}

static const char *type_of(const char *path)
{
	static const struct {
		const char *ending, *type;
	} types[] = {{".json", "application/json"}, {".jsonl", "application/x-ndjson"},
	    {".yaml", "application/yaml"}, {".txt", "text/plain; charset=utf-8"},
	    {".db", "application/vnd.sqlite3"}};
	size_t length = strlen(path);

	for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
		size_t n = strlen(types[i].ending);
		if (length > n && strcmp(path + length - n, types[i].ending) == 0)
			return types[i].type;
	}
	return "application/octet-stream";
}

void job_artifact(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct results results;
	const char *path = request->parameters[1];

	if (!results_open(&results, service, request, true, response))
		return;
	reply_file(service, &results, path, type_of(path), request, response);
	results_release(&results);
}
