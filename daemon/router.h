/*
 * router.h - which row of a table of routes a path belongs to
 *
 * Pure: no server, no allocation. Rows are tried from the top, the first that fits wins.
 */
#ifndef MOECALD_ROUTER_H
#define MOECALD_ROUTER_H

#include <stddef.h>

#include "http.h"

struct router_span {
	const char *start; /* in the path, not NUL-terminated */
	size_t length;
};

struct router_found {
	const struct route *route; /* NULL unless FOUND */
	struct router_span parameters[MAX_PARAMETERS];
	size_t count;
	char allow[32]; /* the methods of the path: "GET, HEAD, POST"; "" when no row has the path */
};

enum router_outcome { ROUTER_FOUND, ROUTER_NO_PATH, ROUTER_NO_METHOD };

/* Whether `path` (without query) fits `pattern` (http.h, struct route). A segment is never "." or
 * "..", nor is one of a rest, and none is empty. */
bool router_match(const char *pattern, const char *path,
    struct router_span ret_parameters[MAX_PARAMETERS], size_t *ret_count);
/* routes ends with a NULL pattern. method as sent; HEAD fits GET rows. */
enum router_outcome router_find(const struct route *routes, const char *method, const char *path,
    struct router_found *ret);

#endif
