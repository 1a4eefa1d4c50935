/*
 * api.h - what the handlers share, and the handlers
 */
#ifndef MOECALD_API_H
#define MOECALD_API_H

#include "service.h"

#define API_MAX_LIMIT 200
#define API_LIMIT 50

/* --- lists ------------------------------------------------------------------------------------- */

struct page {
	uint64_t limit;
	char key[512];    /* where to go on: "" at the start */
	char filter[768]; /* the list and its filter, which cursors are tied to */
};
/* ?limit= and ?cursor= of a list. filter: what the cursor is tied to; printf. */
bool page_read(struct page *page, const struct http_request *request, struct http_response *response,
    const char *fmt, ...) MC_PRINTF(4, 5) MC_CHECKED;
/* {name: list, "next_cursor"}; next NULL or "": the end. Takes list over. Replies. */
void page_reply(const struct page *page, const struct http_request *request,
    struct http_response *response, const char *name, struct mc_json *list, const char *next);

/* --- answers ----------------------------------------------------------------------------------- */

/* A document with an ETag of its content: 304 when the client has it. Takes json over; NULL with err
 * set: the problem that goes with err. */
void api_reply(const struct http_request *request, struct http_response *response,
    struct mc_json *json, const struct mc_error *err);
/* The error of a store or library call on the id of the path: NOT_FOUND -> 404, CONFLICT -> 409,
 * else as problem_reply_error. */
void api_reply_error(struct http_response *response, const struct mc_error *err);
/* {"self": "/v1/models/ID"} and so on: object.links[name] = printf. */
bool api_link(struct mc_json *object, const char *name, struct mc_error *err, const char *fmt, ...)
    MC_PRINTF(4, 5) MC_CHECKED;
bool api_set_time(struct mc_json *object, const char *key, int64_t ms, struct mc_error *err) MC_CHECKED; /* 0: null */
/* A text column that holds JSON; NULL or broken: null. */
bool api_set_document(struct mc_json *object, const char *key, const char *text, struct mc_error *err) MC_CHECKED;

/* The document as one line of text; NULL (json NULL, or with err). Owned. */
char *api_text(const struct mc_json *json, struct mc_error *err) MC_CHECKED;

/* --- making ------------------------------------------------------------------------------------ */

/* The Idempotency-Key header (with or without quotes) to key, "" when absent. */
bool api_idempotency_key(const struct http_request *request, char key[65], struct http_response *response)
    MC_CHECKED;
/* sha256 of the document with sorted keys. */
bool api_fingerprint(const struct mc_json *json, char ret_hex[MC_SHA256_HEX], struct mc_error *err) MC_CHECKED;
/* Nothing new is taken while we stop or the disk is full. */
bool api_require_open(struct service *service, struct http_response *response) MC_CHECKED;
/* Replies to what an add of a `what` named `id` said, unless it was ADDED or ADDED_BEFORE (then true). */
bool api_was_added(struct service *service, enum store_added added, const char *what, const char *id,
    struct http_response *response) MC_CHECKED;
/* A body that must be there. */
bool api_require_body(const struct http_request *request, struct http_response *response) MC_CHECKED;
/* No body, or {}. */
bool api_require_no_body(const struct http_request *request, struct http_response *response) MC_CHECKED;
/* The strings of a flat body, all errors at once (replied): unknown keys, other types, what is needed and
 * absent, an "id" that is no name. */
struct api_text {
	const char *name;
	const char **into;  /* borrowed from the body; NULL when absent */
	const char *needed; /* what it is, when it must be there; or NULL */
};
bool api_read_texts(const struct mc_json *json, const struct api_text *texts, size_t count,
    struct http_response *response) MC_CHECKED;
/* "id" of a body or query (may be NULL) or a new one. */
bool api_choose_id(const char *given, const char *prefix, char ret_id[ID_SIZE], struct http_response *response) MC_CHECKED;

/*
 * Asks moecal with these words (a NULL-terminated list after the program), allowed folders and
 * --parent added, and parses what it prints. Waits for one of the inspectors' seats. When it refuses,
 * the reason is replied. *ret owned. `timed` counts the seconds.
 */
bool api_ask(struct service *service, const char *const *words, const struct mc_buf *input,
    uint64_t seconds, struct mc_json **ret, struct http_response *response) MC_CHECKED;

/* --- a spec ------------------------------------------------------------------------------------ */

/* A job spec as a request gave it, understood. */
struct job_request {
	struct mc_json *answer; /* the spec with all defaults, and the three keys of the queue */
	struct mc_json *spec;   /* what the child reads */
	struct mc_json *inputs; /* [{kind, name, path, files, uploaded}]: what it reads by a name */
	struct mc_json *plan;   /* after job_request_plan */
	int64_t priority, deadline_ms, keep_ms;
	uint64_t memory_bytes, disk_bytes, memory_given;
};
/* All errors at once; replied. */
bool job_request_parse(struct job_request *job, struct service *service, const struct mc_json *json,
    struct http_response *response) MC_CHECKED;
void job_request_release(struct job_request *job);
/* Asks for the plan; replies when it cannot be made. */
bool job_request_plan(struct job_request *job, struct service *service, struct http_response *response) MC_CHECKED;
/* Whether the plan fits; otherwise which problem and a sentence with the numbers. */
bool job_request_fits(const struct job_request *job, struct service *service, enum problem *ret_problem,
    char ret_detail[256]);

/* --- jobs -------------------------------------------------------------------------------------- */

struct mc_json *job_json(const struct job_row *row, struct mc_error *err) MC_CHECKED;
/* The job of the path; replies 404 otherwise. Released by the caller when true. */
bool api_job(struct service *service, const struct http_request *request, struct job_row *ret,
    struct http_response *response) MC_CHECKED;

/* --- handlers ---------------------------------------------------------------------------------- */

http_handler models_post, models_list, model_get, model_delete;
http_handler datasets_post, datasets_list, dataset_get, dataset_delete;
http_handler plans_post;
http_handler jobs_post, jobs_list, job_get, job_delete, job_cancel;
http_handler job_events;
http_handler job_coverage, job_statistics, job_quantization, job_verdict;
http_handler job_artifacts, job_artifact;
http_handler version_get, openapi_get, healthz_get, readyz_get, metrics_get, backup_post;
http_handler page_get, asset_get;

#endif
