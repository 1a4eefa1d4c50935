/*
 * api_derive.c - POST /v1/jobs/{id}/derive: another recipe from what a finished job learned
 */
#include "api.h"

#define ROUTE "POST /v1/jobs" /* what is made is a job like any other, and is forgotten like one   \
			       */

/* What was asked, of which job: the same key with the same again is one job, also when the source
 * is gone meanwhile. */
static bool fingerprint_of(const char *source, const struct mc_json *body,
    char ret_hex[MC_SHA256_HEX], struct mc_error *err)
{
	struct mc_json *root = mc_json_new_object();
	bool ok = mc_json_set(root, "derived_from", mc_json_new_string(source), err) &&
		  mc_json_set(root, "request", mc_json_copy(body, err), err) &&
		  api_fingerprint(root, ret_hex, err);

	mc_json_free(root);
	return ok;
}

static bool require_succeeded(const struct job_row *source, struct http_response *response)
{
	if (source->state == JOB_SUCCEEDED)
		return true;
	if (job_state_is_final(source->state))
		problem_reply(response, PROBLEM_STATE,
		    "job %s has not succeeded, it is %s: there is nothing to derive from",
		    source->id, job_state_name(source->state));
	else
		problem_reply(response, PROBLEM_NOT_FINISHED, "the job is %s; wait for its end",
		    job_state_name(source->state));
	return false;
}

static void derive(struct service *service, struct http_request *request,
    const struct idempotency *idempotency, struct http_response *response)
{
	struct job_request job;
	struct job_row source;

	if (!api_job(service, request, &source, response))
		return;
	if (require_succeeded(&source, response) &&
	    job_request_derive(&job, service, &source, request->json, response)) {
		job_request_submit(service, &job, idempotency, response);
		job_request_release(&job);
	}
	job_row_release(&source);
}

void job_derive(
    struct service *service, struct http_request *request, struct http_response *response)
{
	char key[65], fingerprint[MC_SHA256_HEX], made[ID_SIZE];
	enum store_added added;
	struct mc_error err;

	mc_error_init(&err);
	if (!api_require_body(request, response) || !api_idempotency_key(request, key, response))
		return;
	struct idempotency idempotency = {
	    request->principal, key[0] != '\0' ? key : NULL, ROUTE, fingerprint};
	if (!fingerprint_of(request->parameters[0], request->json, fingerprint, &err) ||
	    !store_idempotency_find(service->store, &idempotency, &added, made, &err))
		api_reply_error(response, &err);
	else if (added == ADDED_BEFORE)
		job_reply_created(service, made, true, response);
	else if (api_was_added(service, added, "job", "", response) &&
		 api_require_open(service, response))
		derive(service, request, &idempotency, response);
}
