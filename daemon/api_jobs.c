/*
 * api_jobs.c - /v1/plans and /v1/jobs: planning, submitting, watching, canceling
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "api.h"
#include "state.h"

#include "moecal/alloc.h"

#define ROUTE "POST /v1/jobs"

/* --- one --------------------------------------------------------------------------------------- */

static bool add_links(struct mc_json *job, const char *id, struct mc_error *err)
{
	static const char *const names[] = {"cancel", "events", "coverage", "statistics",
	    "quantization", "verdict", "artifacts"};
	bool ok = api_link(job, "self", err, "/v1/jobs/%s", id);

	for (size_t i = 0; ok && i < sizeof names / sizeof *names; i++)
		ok = api_link(job, names[i], err, "/v1/jobs/%s/%s", id, names[i]);
	return ok;
}

struct mc_json *job_json(const struct job_row *row, struct mc_error *err)
{
	struct mc_json *job = mc_json_new_object();
	bool ok = mc_json_set(job, "id", mc_json_new_string(row->id), err) &&
		  mc_json_set(job, "state", mc_json_new_string(job_state_name(row->state)), err) &&
		  api_set_document(job, "reason", row->reason, err) &&
		  api_set_document(job, "spec", row->spec, err) &&
		  api_set_document(job, "plan", row->plan, err) &&
		  api_set_document(job, "progress", row->progress, err) &&
		  mc_json_set(job, "attempt", mc_json_new_integer(row->attempt), err) &&
		  mc_json_set(job, "crashes", mc_json_new_integer(row->crashes), err) &&
		  api_set_time(job, "created_at", row->created_ms, err) &&
		  api_set_time(job, "started_at", row->started_ms, err) &&
		  api_set_time(job, "finished_at", row->finished_ms, err) &&
		  api_set_time(job, "expires_at", row->expires_ms, err) &&
		  mc_json_set(job, "version", mc_json_new_integer(row->version), err) &&
		  add_links(job, row->id, err);

	if (ok)
		return job;
	mc_json_free(job);
	return NULL;
}

bool api_job(struct service *service, const struct http_request *request, struct job_row *ret,
    struct http_response *response)
{
	struct mc_error err;

	mc_error_init(&err);
	if (store_job_get(service->store, request->parameters[0], ret, &err))
		return true;
	api_reply_error(response, &err);
	return false;
}

static void reply_row(struct http_response *response, unsigned status, const struct job_row *row)
{
	struct mc_error err;
	char tag[32];

	mc_error_init(&err);
	struct mc_json *job = job_json(row, &err);
	if (job == NULL) {
		api_reply_error(response, &err);
		return;
	}
	http_reply_json(response, status, job);
	snprintf(tag, sizeof tag, "\"v%lld\"", (long long)row->version);
	http_set_header(response, "ETag", tag);
	http_set_header(response, "Cache-Control", "no-cache");
}

/* --- getting and waiting ----------------------------------------------------------------------- */

bool watcher_take(struct service *service)
{
	unsigned most = (unsigned)service_setting(service, watchers);

	if (atomic_fetch_add(&service->watchers, 1) < most)
		return true;
	atomic_fetch_sub(&service->watchers, 1);
	return false;
}

void watcher_leave(struct service *service)
{
	atomic_fetch_sub(&service->watchers, 1);
}

/* Whether the row is what the client waits for: another version than the one it has, or without one
 * a finished job. */
static bool is_news(const struct http_request *request, const struct job_row *row)
{
	char tag[32];

	if (http_header(request, "If-None-Match") == NULL)
		return job_state_is_final(row->state);
	snprintf(tag, sizeof tag, "\"v%lld\"", (long long)row->version);
	return !http_none_match(request, tag);
}

/* Until there is news or the time is over; false when the job cannot be read any more (replied). */
static bool wait_for_news(struct service *service, const struct http_request *request,
    struct job_row *row, int64_t until, struct http_response *response)
{
	while (!is_news(request, row) && monotonic_ms() < until &&
	       !atomic_load(&service->draining) && !http_client_left(request)) {
		uint64_t generation = store_generation(service->store);
		job_row_release(row);
		if (!api_job(service, request, row, response))
			return false;
		if (!is_news(request, row))
			store_wait(service->store, generation, until);
	}
	return true;
}

void job_get(struct service *service, struct http_request *request, struct http_response *response)
{
	struct job_row row;
	uint64_t seconds;
	bool seated = true;

	if (!http_query_count(request, "wait", 0, service_setting(service, wait_seconds), 0,
		&seconds, response) ||
	    !api_job(service, request, &row, response))
		return;
	if (seconds > 0 && !is_news(request, &row) && (seated = watcher_take(service))) {
		bool ok = wait_for_news(service, request, &row,
		    monotonic_ms() + (int64_t)seconds * 1000, response);
		watcher_leave(service);
		if (!ok)
			return;
	}
	bool same = http_header(request, "If-None-Match") != NULL && !is_news(request, &row);
	reply_row(response, 200, &row);
	if (same) {
		char tag[32];
		snprintf(tag, sizeof tag, "\"v%lld\"", (long long)row.version);
		http_reply_empty(response, 304);
		http_set_header(response, "ETag", tag);
		http_set_header(response, "Cache-Control", "no-cache");
	}
	if (!seated) /* all seats of those who wait are taken: answered at once */
		http_set_header(response, "Retry-After", "1");
	job_row_release(&row);
}

/* --- the list ---------------------------------------------------------------------------------- */

static bool read_states(
    const char *text, unsigned *ret_states, struct http_response *response)
{
	char copy[128], *rest = copy, *name;

	*ret_states = 0;
	if (text == NULL)
		return true;
	snprintf(copy, sizeof copy, "%s", text);
	while ((name = strsep(&rest, ",")) != NULL) {
		enum job_state state;
		if (!job_state_parse(name, &state)) {
			problem_reply(response, PROBLEM_QUERY,
			    "state '%.40s' is none of queued, running, canceling, succeeded, failed, "
			    "canceled",
			    name);
			return false;
		}
		*ret_states |= 1u << state;
	}
	return true;
}

static bool add_job(void *ctx, const struct job_row *row, struct mc_error *err)
{
	struct mc_json *job = job_json(row, err);

	return job != NULL && mc_json_append(ctx, job, err);
}

void jobs_list(struct service *service, struct http_request *request, struct http_response *response)
{
	const char *state = http_query(request, "state"), *model = http_query(request, "model");
	struct job_filter filter = {.model = model};
	struct page page;
	int64_t next;
	char key[24] = "";
	struct mc_error err;

	if (!read_states(state, &filter.states, response) ||
	    !page_read(&page, request, response, "jobs %x %s", filter.states,
		model != NULL ? model : ""))
		return;
	mc_error_init(&err);
	filter.before = atoll(page.key);
	filter.limit = page.limit;
	struct mc_json *list = mc_json_new_array();
	if (!store_job_list(service->store, &filter, add_job, list, &next, &err)) {
		mc_json_free(list);
		api_reply_error(response, &err);
		return;
	}
	if (next > 0)
		snprintf(key, sizeof key, "%lld", (long long)next);
	page_reply(&page, request, response, "jobs", list, key);
}

/* --- planning and submitting ------------------------------------------------------------------- */

void plans_post(
    struct service *service, struct http_request *request, struct http_response *response)
{
	struct job_request job;
	enum problem problem = PROBLEM_TOO_BIG;
	char detail[256];
	struct mc_error err;

	if (!api_require_body(request, response) ||
	    !job_request_parse(&job, service, request->json, response))
		return;
	mc_error_init(&err);
	if (job_request_plan(&job, service, response)) {
		bool fits = job_request_fits(&job, service, &problem, detail);
		struct mc_json *root = mc_json_new_object(), *reason = mc_json_new_null();
		bool ok = true;
		if (!fits) {
			mc_json_free(reason);
			reason = mc_json_new_object();
			ok = mc_json_set(
				 reason, "code", mc_json_new_string(problem_name(problem)), &err) &&
			     mc_json_set(reason, "detail", mc_json_new_string(detail), &err);
		}
		ok = mc_json_set(root, "fits", mc_json_new_bool(fits), &err) &&
		     mc_json_set(root, "reason", reason, &err) && ok &&
		     mc_json_set(root, "plan", mc_json_copy(job.plan, &err), &err) &&
		     mc_json_set(root, "spec", mc_json_copy(job.answer, &err), &err);
		if (ok)
			http_reply_json(response, 200, root);
		else {
			mc_json_free(root);
			api_reply_error(response, &err);
		}
	}
	job_request_release(&job);
}

static void reply_created(
    struct service *service, const char *id, bool replayed, struct http_response *response)
{
	struct job_row row;
	struct mc_error err;
	char location[96];

	mc_error_init(&err);
	if (!store_job_get(service->store, id, &row, &err)) {
		api_reply_error(response, &err);
		return;
	}
	reply_row(response, 201, &row);
	job_row_release(&row);
	snprintf(location, sizeof location, "/v1/jobs/%s", id);
	http_set_header(response, "Location", location);
	if (replayed)
		http_set_header(response, "Idempotency-Replayed", "true");
}

/* What the runner hands to the child: {"spec", "inputs"}. */
static char *request_text(const struct job_request *job, struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();
	char *text = NULL;

	if (mc_json_set(root, "spec", mc_json_copy(job->spec, err), err) &&
	    mc_json_set(root, "inputs", mc_json_copy(job->inputs, err), err))
		text = api_text(root, err);
	mc_json_free(root);
	return text;
}

static size_t registered_inputs(const struct job_request *job, struct job_input *inputs)
{
	size_t count = 0;

	for (size_t i = 0; i < mc_json_size(job->inputs); i++) {
		const struct mc_json *one = mc_json_at(job->inputs, i);
		if (mc_json_bool(mc_json_get(one, "registered")))
			inputs[count++] = (struct job_input){
			    mc_json_string(mc_json_get(one, "kind"), NULL),
			    mc_json_string(mc_json_get(one, "name"), NULL)};
	}
	return count;
}

static bool add_row(struct service *service, const struct job_request *job,
    const struct idempotency *idempotency, enum store_added *ret, char ret_id[ID_SIZE],
    struct mc_error *err)
{
	struct store_limits limits = {.queued = service_setting(service, queued_jobs),
	    .queued_of_principal = service_setting(service, queued_jobs_per_token)};
	struct job_row row = {.principal = mc_strdup(idempotency->principal, err),
	    .spec = api_text(job->answer, err),
	    .request = request_text(job, err),
	    .plan = api_text(job->plan, err),
	    .priority = job->priority,
	    .deadline_ms = job->deadline_ms,
	    .keep_ms = job->keep_ms,
	    .memory_bytes = (int64_t)job->memory_bytes,
	    .disk_bytes = (int64_t)job->disk_bytes,
	    .created_ms = now_ms()};
	struct job_input *inputs =
	    mc_alloc(mc_json_size(job->inputs) + 1, sizeof *inputs, "inputs", err);
	bool ok = row.principal != NULL && row.spec != NULL && row.request != NULL &&
		  row.plan != NULL && inputs != NULL &&
		  id_make("job", row.created_ms, row.id, err) &&
		  store_job_add(service->store, &row, inputs, registered_inputs(job, inputs),
		      idempotency, &limits, ret, ret_id, err);

	free(inputs);
	job_row_release(&row);
	return ok;
}

/* A full queue is told before anything is looked at. */
static bool require_room(struct service *service, struct http_response *response)
{
	uint64_t queued;
	struct mc_error err;

	mc_error_init(&err);
	if (!store_count_queued(service->store, &queued, &err)) {
		api_reply_error(response, &err);
		return false;
	}
	return queued < service_setting(service, queued_jobs) ||
	       api_was_added(service, ADD_FULL, "job", "", response);
}

static void submit(struct service *service, struct job_request *job,
    const struct idempotency *idempotency, struct http_response *response)
{
	enum problem problem;
	enum store_added added;
	char detail[256], id[ID_SIZE];
	struct mc_error err;

	mc_error_init(&err);
	if (!require_room(service, response) || !job_request_plan(job, service, response))
		return;
	if (!job_request_fits(job, service, &problem, detail)) {
		problem_reply(response, problem, "%s", detail);
	} else if (!add_row(service, job, idempotency, &added, id, &err)) {
		api_reply_error(response, &err);
	} else if (api_was_added(service, added, "job", "", response)) {
		runner_wake(service->runner);
		reply_created(service, id, added == ADDED_BEFORE, response);
	}
}

void jobs_post(struct service *service, struct http_request *request, struct http_response *response)
{
	struct job_request job;
	char key[65], fingerprint[MC_SHA256_HEX], made[ID_SIZE];
	enum store_added added;
	struct mc_error err;

	mc_error_init(&err);
	if (!api_require_body(request, response) || !api_idempotency_key(request, key, response) ||
	    !api_require_open(service, response) ||
	    !job_request_parse(&job, service, request->json, response))
		return;
	struct idempotency idempotency = {
	    request->principal, key[0] != '\0' ? key : NULL, ROUTE, fingerprint};
	if (!api_fingerprint(job.answer, fingerprint, &err) ||
	    !store_idempotency_find(service->store, &idempotency, &added, made, &err))
		api_reply_error(response, &err);
	else if (added == ADDED_BEFORE)
		reply_created(service, made, true, response);
	else if (api_was_added(service, added, "job", "", response))
		submit(service, &job, &idempotency, response);
	job_request_release(&job);
}

/* --- canceling and deleting -------------------------------------------------------------------- */

/* One try; CONFLICT when the job moved on meanwhile. */
static bool try_cancel(struct service *service, const char *id, bool *ret_too_late, struct mc_error *err)
{
	struct job_row row;
	struct job_change change = {.now_ms = now_ms()};

	if (!store_job_get(service->store, id, &row, err))
		return false;
	enum job_state state = row.state;
	job_row_release(&row);
	*ret_too_late = state == JOB_SUCCEEDED || state == JOB_FAILED;
	if (*ret_too_late || state == JOB_CANCELED || state == JOB_CANCELING)
		return true;
	change.to = state == JOB_QUEUED ? JOB_CANCELED : JOB_CANCELING;
	if (!store_job_move(service->store, id, state, &change, err))
		return false;
	if (change.to == JOB_CANCELED)
		metrics_job_finished(service->metrics, "canceled", "");
	return true;
}

void job_cancel(struct service *service, struct http_request *request, struct http_response *response)
{
	struct job_row row;
	struct mc_error err;
	bool too_late = false, ok;

	if (!api_require_no_body(request, response))
		return;
	do {
		mc_error_init(&err);
		ok = try_cancel(service, request->parameters[0], &too_late, &err);
	} while (!ok && err.code == MC_CONFLICT);
	if (!ok) {
		api_reply_error(response, &err);
		return;
	}
	runner_wake(service->runner);
	if (!api_job(service, request, &row, response))
		return;
	if (too_late)
		problem_reply(response, PROBLEM_STATE, "job %s has %s already", row.id,
		    job_state_name(row.state));
	else
		reply_row(response, 200, &row);
	job_row_release(&row);
}

void job_delete(struct service *service, struct http_request *request, struct http_response *response)
{
	struct mc_error err;

	mc_error_init(&err);
	if (!store_job_delete(service->store, request->parameters[0], &err)) {
		api_reply_error(response, &err);
		return;
	}
	/* what cannot be removed now is swept at the next start */
	if (!state_remove_job(service->settings.state, request->parameters[0], &err))
		log_error(request->parameters[0], "removing the files of a deleted job", &err);
	http_reply_empty(response, 204);
}
