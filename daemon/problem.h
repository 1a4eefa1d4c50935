/*
 * problem.h - every answer that is an error: RFC 9457, one row a kind
 *
 * {"type": "urn:moecal:problem:NAME", "title", "status", "detail", "instance": "urn:moecal:request:ID",
 *  "errors": [{"pointer", "detail"}]}. Clients switch on type; each NAME is a heading of docs/API.md.
 */
#ifndef MOECALD_PROBLEM_H
#define MOECALD_PROBLEM_H

#include "moecal/error.h"
#include "moecal/problems.h"

#define PROBLEMS(X)                                                                                \
	X(REQUEST, 400, "request-invalid", "The request is not one that this service reads")           \
	X(JSON, 400, "json-invalid", "The body is not JSON")                                           \
	X(QUERY, 400, "query-invalid", "A part of the query is not valid")                             \
	X(HEADER, 400, "header-invalid", "A header is not valid")                                      \
	X(CURSOR, 400, "cursor-invalid", "The cursor does not belong to this list")                    \
	X(TOKEN, 401, "token-missing", "A valid token is needed")                                      \
	X(SCOPE, 403, "scope-missing", "The token does not allow this")                                \
	X(ORIGIN, 403, "origin-refused", "Requests from other sites are refused")                      \
	X(NOT_FOUND, 404, "not-found", "There is no such thing")                                       \
	X(METHOD, 405, "method-not-allowed", "The method is not one of this resource's")               \
	X(ACCEPT, 406, "not-acceptable", "None of the accepted media types is one that we have")       \
	X(TIMEOUT, 408, "request-timeout", "The request took too long to arrive")                      \
	X(STATE, 409, "state-conflict", "The state of the resource does not allow this")               \
	X(NOT_FINISHED, 409, "not-finished", "The job is not finished")                                \
	X(NAME_TAKEN, 409, "name-taken", "The name is taken")                                          \
	X(IN_USE, 409, "in-use", "The resource is in use")                                             \
	X(CHANGED, 409, "files-changed", "The files are not the ones that were registered")            \
	X(TOO_LARGE, 413, "body-too-large", "The body is larger than allowed")                         \
	X(MEDIA, 415, "media-type-unsupported", "The media type of the body is not one that we read")  \
	X(RANGE, 416, "range-not-satisfiable", "The range lies outside of the file")                   \
	X(SPEC, 422, "spec-invalid", "The request has fields that are not valid")                      \
	X(UNSUPPORTED, 422, "unsupported", "This is not something that the service can do")            \
	X(INPUT, 422, "input-invalid", "A file that the request names cannot be used")                 \
	X(KEY_REUSED, 422, "idempotency-key-reused", "The idempotency key was used for another request") \
	X(TOO_BIG, 422, "plan-too-large", "The job does not fit on this machine")                      \
	X(QUOTA, 429, "quota-exceeded", "The quota is used up")                                        \
	X(INTERNAL, 500, "internal", "Something went wrong here")                                      \
	X(QUEUE_FULL, 503, "queue-full", "The queue is full")                                          \
	X(BUSY, 503, "busy", "Too much is being worked on")                                            \
	X(DISK_LOW, 503, "disk-low", "The disk is nearly full")                                        \
	X(DRAINING, 503, "draining", "The service is stopping")                                        \
	X(STORE, 503, "store-failed", "The database does not work")

enum problem {
#define X(id, status, name, title) PROBLEM_##id,
	PROBLEMS(X)
#undef X
	PROBLEM_COUNT
};
unsigned problem_status(enum problem problem);
const char *problem_name(enum problem problem);

struct http_response;

/* Fills the response (whatever it held before is dropped). detail: how to correct it. 405, 401,
 * 429, 503 headers: Allow is the router's; WWW-Authenticate and Retry-After: 1 are set here (change
 * Retry-After with http_set_header). */
void problem_reply(struct http_response *response, enum problem problem, const char *fmt, ...)
    MC_PRINTF(3, 4);
/* All field errors at once: PROBLEM_SPEC with "errors". */
void problem_reply_fields(struct http_response *response, const struct mc_problems *problems);
/* By the code of the error: INVALID -> SPEC with one entry whose pointer is err->where if it begins
 * with '/', NOT_FOUND / CORRUPT -> INPUT, UNSUPPORTED, NO_MEMORY -> TOO_BIG, NO_SPACE -> DISK_LOW,
 * CANCELED -> DRAINING, IO/INTERNAL -> INTERNAL (whose details go to the log only). */
void problem_reply_error(struct http_response *response, const struct mc_error *err);

#endif
