/*
 * http_parts.h - what the files behind http.h share
 */
#ifndef MOECALD_HTTP_PARTS_H
#define MOECALD_HTTP_PARTS_H

#include <pthread.h>
#include <stdatomic.h>

#include "http.h"
#include "http_seats.h"
#include "ids.h"
#include "service.h"

#include "moecal/buf.h"
#include "moecal/sha256.h"

struct MHD_Connection;
struct MHD_Daemon;
struct MHD_Response;

/* --- responses (http_reply.c) ------------------------------------------------------------------ */

enum http_reply_kind { REPLY_NONE, REPLY_BYTES, REPLY_STATIC, REPLY_FILE, REPLY_STREAM };

struct http_field {
	char *name, *value; /* owned */
};

#define HTTP_MAX_FIELDS 16

struct http_response {
	const char *request_id; /* borrowed */
	unsigned status;        /* 0: no reply yet */
	enum http_reply_kind kind;
	char *bytes;          /* BYTES; owned */
	const void *constant; /* STATIC */
	uint64_t length;      /* BYTES, STATIC, FILE */
	int fd;               /* FILE; owned */
	uint64_t offset;      /* FILE */
	struct http_stream *stream; /* STREAM; owned */
	struct http_field fields[HTTP_MAX_FIELDS];
	size_t fields_count;
	bool failed; /* a header could not be kept: nothing but 500 would be true */
};

void http_response_init(struct http_response *response, const char *request_id);
void http_response_release(struct http_response *response);
/* Drops body, status and headers. */
void http_response_clear(struct http_response *response);
const char *http_response_header(const struct http_response *response, const char *name);
/* Takes bytes (malloc) over; they may be NULL when length is 0. */
void http_reply_bytes(struct http_response *response, unsigned status, const char *type,
    char *bytes, size_t length);
/* What the library sends. The response's body goes over to it. head: only the headers are wanted.
 * NULL when out of memory. Owned: MHD_destroy_response. */
struct MHD_Response *http_response_make(struct http_response *response, bool head,
    bool close_after);

/* --- negotiation (http_negotiate.c) ------------------------------------------------------------ */

enum http_range { RANGE_WHOLE, RANGE_PART, RANGE_OUTSIDE };
/* value of a Range header against `bytes`; what is not one range of bytes asks for the whole. */
enum http_range http_range_parse(const char *value, uint64_t bytes, uint64_t *ret_first,
    uint64_t *ret_last);
/* Thousandths that an Accept header gives to a type; 0: not accepted. */
unsigned http_accept_quality(const char *accept, const char *type);
/* An If-None-Match header holds the tag (with quotes), compared weakly, or is "*". */
bool http_tag_matches(const char *header, const char *tag);
bool http_is_utf8(const char *text, size_t length);

/* --- the server (http.c, http_listen.c) -------------------------------------------------------- */

struct http_listener {
	struct http_server *server;
	struct MHD_Daemon *mhd; /* NULL: not started */
	int fd;                 /* -1 once closed or given away */
	bool passed;            /* by systemd: neither shut nor unlinked */
	bool is_tcp;
	bool is_local; /* a Unix socket or loopback: others cannot reach it */
	char address[160];
	char path[108]; /* of a Unix socket that we made; "" otherwise */
	uint64_t device, inode;
};

struct http_listeners {
	size_t count, capacity;
	struct http_listener *items; /* owned */
};
/* Opens the sockets of one entry of settings.listen and appends them. */
bool http_listen_open(struct http_listeners *listeners, const char *spec, struct mc_error *err)
    MC_CHECKED;
/* Refuses new connections from now on, if the socket is ours alone. */
void http_listen_shut(struct http_listener *listener);
/* Closes, and removes the file of a Unix socket that is still ours. */
void http_listen_close(struct http_listener *listener);

struct http_server {
	struct service *service;
	struct seats *seats;
	struct http_listeners listeners;
	pthread_mutex_t parsing;
	bool raw_lines; /* the library leaves header lines as they came (http_request.c) */
	atomic_bool quiesced, stopping;
};

/* --- one request and its answer ---------------------------------------------------------------- */

struct http_exchange {
	struct http_request request;
	struct http_response response;
	struct http_server *server;
	const struct http_listener *listener;
	struct seat *seat;
	struct MHD_Connection *mhd;
	char *target;   /* raw, with the query; owned */
	char *path;     /* raw, without; owned */
	char *segments; /* where the parameters lie; owned */
	const char *method; /* GET, HEAD, POST, DELETE or OTHER */
	char principal[ID_SIZE];
	char media_type[80];
	int64_t began_ms;
	bool screened; /* looked at; false when the library refused it by itself */
	bool head, has_body, refused, broken /* close after the answer */, early, answered;
	/* the body */
	bool to_file;
	bool knows_length;
	uint64_t declared, received, limit;
	struct mc_buf body;
	int upload_fd;
	struct mc_sha256 *digest;
};

/* http_request.c: everything that is checked before a body byte is kept. false: the response holds
 * the refusal. */
bool http_request_begin(struct http_exchange *exchange, const char *method, const char *version)
    MC_CHECKED;

/* http_body.c. add and end: false when the response holds a refusal. */
bool http_body_begin(struct http_exchange *exchange) MC_CHECKED;
bool http_body_add(struct http_exchange *exchange, const char *bytes, size_t length) MC_CHECKED;
bool http_body_end(struct http_exchange *exchange) MC_CHECKED;
void http_body_release(struct http_exchange *exchange);
/* Makes the folder of uploads, removes what a crash left in it. */
bool http_uploads_prepare(const char *state, struct mc_error *err) MC_CHECKED;

#endif
