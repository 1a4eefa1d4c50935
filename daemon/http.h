/*
 * http.h - the wall around libmicrohttpd: requests in, responses out
 *
 * One thread a connection, so a handler may wait. Before a body byte is kept, in this order: screen
 * (screen.h), route, method, Origin and Host, token and scope, media type, declared size. A request
 * has request_seconds from its connection (or from the answer before it) to its last byte,
 * upload_seconds if its route takes an upload: a tick cuts those that take longer.
 */
#ifndef MOECALD_HTTP_H
#define MOECALD_HTTP_H

#include <stdint.h>
#include <sys/types.h>

#include "auth.h"
#include "problem.h"

#include "moecal/buf.h"
#include "moecal/json.h"
#include "moecal/sha256.h"

#define REQUEST_ID_SIZE 32 /* req_ and 26 characters */
#define MAX_PARAMETERS 2

struct service;
struct http_request;
struct http_response;

/* --- routes ---------------------------------------------------------------------------------- */

enum http_method { HTTP_GET, HTTP_POST, HTTP_DELETE }; /* HEAD is GET without the body */
const char *http_method_name(enum http_method method);

enum http_body {
	BODY_NONE,   /* a body is refused with 413 */
	BODY_JSON,   /* application/json, at most settings.body_bytes, parsed before the handler; may be absent if optional */
	BODY_UPLOAD  /* JSON as above, or application/x-ndjson, text/plain, application/octet-stream
	              * streamed to a file */
};

typedef void http_handler(struct service *service, struct http_request *request, struct http_response *response);

struct route {
	enum http_method method;
	/* "/v1/jobs/{id}/artifacts/{path...}": {x} is one segment of [A-Za-z0-9._-], {x...} the rest */
	const char *pattern;
	enum scope scope; /* SCOPE_NONE: nobody needs a token */
	enum http_body body;
	http_handler *handler;
	const char *const *query; /* keys that its query may have, ends with NULL; NULL: none */
	bool probe;               /* of health: answered when all connections are taken */
};
/* route.c; ends with a NULL pattern. */
extern const struct route routes[];

/* --- a request --------------------------------------------------------------------------------- */

struct http_request {
	const struct route *route;
	const char *path;                       /* as sent, without the query; screened */
	const char *parameters[MAX_PARAMETERS]; /* in the order of the pattern; "" when absent */
	char id[REQUEST_ID_SIZE];
	const char *principal; /* name of the token, "" without tokens */
	enum scope scope;
	const char *media_type; /* of the body, lower case, without parameters; "" when none */
	struct mc_json *json;   /* the body of BODY_JSON; NULL when there was none */
	/* BODY_UPLOAD that is not JSON: the file, complete but not synced; the handler may rename it and
	 * then sets upload_path[0] = '\0'; otherwise it is removed. */
	char upload_path[4096];
	uint64_t upload_bytes;
	char upload_sha256[MC_SHA256_HEX];
	void *connection; /* private */
};
/* NULL when absent; percent-decoded; borrowed until the answer. Keys that the route does not have, or
 * that come twice, were refused before. */
const char *http_query(const struct http_request *request, const char *name);
const char *http_header(const struct http_request *request, const char *name);
/* The client hung up: nobody waits for the answer any more. Known within a second. */
bool http_client_left(const struct http_request *request);
/* An integer of the query within bounds, or `otherwise` when absent. */
bool http_query_count(const struct http_request *request, const char *name, uint64_t least,
    uint64_t most, uint64_t otherwise, uint64_t *ret, struct http_response *response) MC_CHECKED;
/* Which of the media types (NULL-terminated list) the Accept header likes best (q values, "*"
 * wildcards; the earlier of equals; no header: the first); -1: none. */
int http_accept(const struct http_request *request, const char *const *types);
/* True when If-None-Match holds this tag (with its quotes) or "*". */
bool http_none_match(const struct http_request *request, const char *tag);

/* --- a response -------------------------------------------------------------------------------- */

/* Writes up to max bytes to `into`; may wait at most 15 s. Returns bytes > 0, 0 never, -1 at the end. */
typedef ssize_t http_stream_fn(void *ctx, char *into, size_t max);

/* Exactly one of the reply calls below (or problem_reply) per request; a later one replaces it. */
void http_reply_json(struct http_response *response, unsigned status, struct mc_json *json); /* takes json over; NULL -> 500 */
void http_reply_text(struct http_response *response, unsigned status, const char *type, struct mc_buf *text); /* takes the bytes over */
void http_reply_static(struct http_response *response, const char *type, const void *bytes, size_t length);
void http_reply_empty(struct http_response *response, unsigned status); /* 204, 304 */
/* A file: takes fd over. Answers Range (one range: 206, else 416; If-Range with the tag) and
 * If-None-Match itself. sha256 (may be NULL) becomes ETag and Repr-Digest. */
void http_reply_file(struct http_request *request, struct http_response *response, int fd, uint64_t bytes,
    const char *type, const char *sha256);
/* done(ctx) is called exactly once, also when the client goes away. */
void http_reply_stream(struct http_response *response, const char *type, http_stream_fn *read,
    void (*done)(void *ctx), void *ctx);
/* Replaces a header of the same name. */
void http_set_header(struct http_response *response, const char *name, const char *value);
unsigned http_response_status(const struct http_response *response);
const char *http_response_request(const struct http_response *response); /* the request's id */

/* --- the server -------------------------------------------------------------------------------- */

struct http_server;
/* Opens all listeners of the settings ("systemd": descriptors 3.. of LISTEN_FDS). Unix sockets get
 * mode 0660; a stale socket file is replaced, one in use is an error. Starts serving. */
struct http_server *http_start(struct service *service, struct mc_error *err) MC_CHECKED;
/* "http://127.0.0.1:8460" or "unix:PATH" of listener number `index`; NULL past the end. */
const char *http_address(const struct http_server *server, size_t index);
/* Cuts connections past their deadline; call about once a second. */
void http_tick(struct http_server *server);
unsigned http_connections(const struct http_server *server);
/* No new connections; answers carry Connection: close from now on. Then wake the watchers. */
void http_quiesce(struct http_server *server);
/* Waits for the requests in flight, at most `seconds`; then frees everything. */
void http_stop(struct http_server *server, unsigned seconds);

#endif
