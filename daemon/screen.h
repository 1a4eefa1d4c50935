/*
 * screen.h - what libmicrohttpd lets through and we do not
 *
 * Pure functions over what the client sent, so that they can be tested and fuzzed without a server.
 */
#ifndef MOECALD_SCREEN_H
#define MOECALD_SCREEN_H

#include <stddef.h>

#include "moecal/error.h"

#define SCREEN_MAX_HEADERS 64
#define SCREEN_MAX_URI 4096

struct screen_header {
	const char *name, *value;
};

/*
 * false with INVALID and a sentence unless: HTTP/1.1 or 1.0; exactly one Host (1.1); not both
 * Content-Length and Transfer-Encoding; at most one Content-Length, digits only; Transfer-Encoding
 * absent or exactly "chunked"; the raw URI begins with '/' and holds only [A-Za-z0-9/_.~?=&,+-], ':'
 * and '*' in the query, '%' (with two hex digits, never %00) only in the query; no "//", "/./",
 * "/../" parts in the path; at most SCREEN_MAX_HEADERS headers, names of token characters without white space, values
 * without control characters; Host, Content-Type, Authorization, Accept, If-None-Match, Range,
 * Idempotency-Key, Last-Event-ID, Origin, Expect each at most once; Expect only 100-continue.
 */
bool screen_request(const char *version, const char *raw_uri, const struct screen_header *headers,
    size_t count, struct mc_error *err) MC_CHECKED;
/* host: the Host header without port is localhost, *.localhost, an address of loopback, or in allowed. */
bool screen_host(const char *host, char *const *allowed, size_t allowed_count);
/* The Origin header (not NULL, not "null") names the same host and port as the Host header. */
bool screen_origin(const char *origin, const char *host);

#endif
