/*
 * http_request.c - what is checked before a body byte is kept, and what handlers ask of a request
 */
#include "http_parts.h"

#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "router.h"
#include "screen.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

/* --- headers as they came ---------------------------------------------------------------------- */

struct header_walk {
	struct screen_header items[SCREEN_MAX_HEADERS + 1];
	size_t count;
	const char *expected; /* where the next line must begin; NULL: not looked at */
	bool odd;             /* a line was not "name: value CR LF" */
};

/*
 * The library reads what RFC 9112 forbids: lines that end in a bare LF, lines folded into the *name*
 * of a header ("Transfer-Encodin: chunked" and " g"), values cut at a NUL. None of it can be told
 * from names and values. But it leaves the lines where they came in and only puts NULs over ':', CR
 * and LF: so a good header begins two bytes behind the end of the line before. Anyone in front who
 * reads such a line in another way than the library does could be made to see other requests.
 */
static bool follows(struct header_walk *walk, const char *name, size_t name_length,
    const char *value, size_t value_length)
{
	const char *at = name + name_length;
	if (name != walk->expected || *at != '\0')
		return false;
	for (at++; at != value; at++)
		if (*at != ' ' && *at != '\t')
			return false;
	at = value + value_length;
	if (at[0] != '\0' || at[1] != '\0')
		return false;
	walk->expected = at + 2;
	return true;
}

static enum MHD_Result keep_header(void *cls, enum MHD_ValueKind kind, const char *name,
    size_t name_length, const char *value, size_t value_length)
{
	struct header_walk *walk = cls;
	(void)kind;
	if (!value) {
		value = "";
		walk->odd = true;
	}
	if (strlen(name) != name_length || strlen(value) != value_length)
		walk->odd = true;
	if (walk->expected && !walk->odd)
		walk->odd = !follows(walk, name, name_length, value, value_length);
	if (walk->count <= SCREEN_MAX_HEADERS)
		walk->items[walk->count++] = (struct screen_header){name, value};
	return MHD_YES;
}

static bool screen(struct http_exchange *x, const char *version)
{
	struct mc_error err;
	struct header_walk walk = {.count = 0};
	mc_error_init(&err);
	if (x->server->raw_lines)
		walk.expected = version + strlen(version) + 2;
	MHD_get_connection_values_n(x->mhd, MHD_HEADER_KIND, keep_header, &walk);
	if (walk.odd)
		mc_fail(&err, MC_INVALID, "",
		    "A header line is folded, holds a NUL or does not end with CR and LF.");
	else if (screen_request(version, x->target, walk.items, walk.count, &err)) {
		if (strcmp(version, "HTTP/1.0") != 0 || !http_header(&x->request, "Transfer-Encoding"))
			return true;
		mc_fail(&err, MC_INVALID, "", "HTTP/1.0 knows no Transfer-Encoding.");
	}
	metrics_add(x->server->service->metrics, METRIC_SCREENED, 1);
	problem_reply(&x->response, PROBLEM_REQUEST, "%s", err.text);
	x->broken = true; /* where the next request would begin is not known */
	return false;
}

/* --- the query --------------------------------------------------------------------------------- */

struct query_walk {
	const char *const *known;
	const char *seen[32];
	size_t count;
	const char *unknown, *twice;
	bool odd, many;
};

static enum MHD_Result look_at_argument(void *cls, enum MHD_ValueKind kind, const char *name,
    size_t name_length, const char *value, size_t value_length)
{
	struct query_walk *walk = cls;
	(void)kind;
	if (!http_is_utf8(name, name_length) || (value && !http_is_utf8(value, value_length)))
		walk->odd = true;
	for (size_t i = 0; value && i < value_length; i++)
		if ((unsigned char)value[i] < ' ' || value[i] == 0x7f)
			walk->odd = true;
	for (size_t i = 0; i < walk->count; i++)
		if (strcmp(walk->seen[i], name) == 0)
			walk->twice = name;
	if (walk->count == sizeof(walk->seen) / sizeof(walk->seen[0]))
		walk->many = true;
	else
		walk->seen[walk->count++] = name;
	bool known = !walk->known;
	for (size_t i = 0; walk->known && walk->known[i]; i++)
		known = known || strcmp(walk->known[i], name) == 0;
	if (!known && !walk->unknown)
		walk->unknown = name;
	return MHD_YES;
}

static void walk_query(const struct http_exchange *x, struct query_walk *walk)
{
	MHD_get_connection_values_n(x->mhd, MHD_GET_ARGUMENT_KIND, look_at_argument, walk);
}

const char *http_query(const struct http_request *request, const char *name)
{
	const struct http_exchange *x = request->connection;
	const char *value = NULL;
	size_t length = 0;
	if (MHD_lookup_connection_value_n(
		x->mhd, MHD_GET_ARGUMENT_KIND, name, strlen(name), &value, &length) != MHD_YES)
		return NULL;
	return value ? value : "";
}

static bool check_query(struct http_exchange *x)
{
	static const char *const none[] = {NULL};
	const char *const *known = x->request.route->query ? x->request.route->query : none;
	struct http_response *response = &x->response;
	struct query_walk walk = {.known = known};
	size_t count = 0;
	walk_query(x, &walk);
	if (walk.odd) {
		problem_reply(response, PROBLEM_QUERY,
		    "The query must be UTF-8 without control characters.");
		return false;
	}
	while (known[count])
		count++;
	if (walk.unknown) {
		const char *near = mc_nearest(walk.unknown, known, count);
		problem_reply(response, PROBLEM_QUERY, "'%.64s' is not a key of this query%s%s%s",
		    walk.unknown, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : ".");
		return false;
	}
	if (walk.twice || walk.many) {
		problem_reply(response, PROBLEM_QUERY, "'%.64s' is in the query more than once.",
		    walk.twice ? walk.twice : walk.seen[0]);
		return false;
	}
	return true;
}

bool http_query_count(const struct http_request *request, const char *name, uint64_t least,
    uint64_t most, uint64_t otherwise, uint64_t *ret, struct http_response *response)
{
	const char *text = http_query(request, name);
	uint64_t value = 0;
	bool fine = text && *text != '\0';
	if (!text) {
		*ret = otherwise;
		return true;
	}
	for (const char *at = text; *at != '\0' && fine; at++)
		fine = *at >= '0' && *at <= '9' &&
		       !__builtin_mul_overflow(value, (uint64_t)10, &value) &&
		       !__builtin_add_overflow(value, (uint64_t)(*at - '0'), &value);
	if (!fine || value < least || value > most) {
		problem_reply(response, PROBLEM_QUERY, "%s is '%.64s'; a whole number from %llu to %llu is needed.",
		    name, text, (unsigned long long)least, (unsigned long long)most);
		return false;
	}
	*ret = value;
	return true;
}

const char *http_header(const struct http_request *request, const char *name)
{
	const struct http_exchange *x = request->connection;
	return MHD_lookup_connection_value(x->mhd, MHD_HEADER_KIND, name);
}

int http_accept(const struct http_request *request, const char *const *types)
{
	const char *accept = http_header(request, "Accept");
	int best = -1;
	unsigned best_quality = 0;
	if (!accept || accept[strspn(accept, " \t")] == '\0')
		return types[0] ? 0 : -1;
	for (int i = 0; types[i]; i++) {
		unsigned quality = http_accept_quality(accept, types[i]);
		if (quality > best_quality) {
			best = i;
			best_quality = quality;
		}
	}
	return best;
}

bool http_none_match(const struct http_request *request, const char *tag)
{
	const char *header = http_header(request, "If-None-Match");
	return header && http_tag_matches(header, tag);
}

/* --- route and method -------------------------------------------------------------------------- */

static bool keep_parameters(struct http_exchange *x, const struct router_found *found)
{
	size_t bytes = 0;
	for (size_t i = 0; i < found->count; i++)
		bytes += found->parameters[i].length + 1;
	x->segments = bytes > 0 ? malloc(bytes) : NULL;
	if (bytes > 0 && !x->segments) {
		problem_reply(&x->response, PROBLEM_BUSY, "There is no memory for this just now.");
		return false;
	}
	char *at = x->segments;
	for (size_t i = 0; i < found->count; i++) {
		memcpy(at, found->parameters[i].start, found->parameters[i].length);
		at[found->parameters[i].length] = '\0';
		x->request.parameters[i] = at;
		at += found->parameters[i].length + 1;
	}
	return true;
}

static bool find_route(struct http_exchange *x, const char *method)
{
	struct router_found found;
	switch (router_find(routes, method, x->path, &found)) {
	case ROUTER_NO_PATH:
		problem_reply(&x->response, PROBLEM_NOT_FOUND, "There is no '%.256s'.", x->path);
		return false;
	case ROUTER_NO_METHOD:
		problem_reply(&x->response, PROBLEM_METHOD, "'%.256s' allows %s.", x->path, found.allow);
		http_set_header(&x->response, "Allow", found.allow);
		return false;
	case ROUTER_FOUND:
		break;
	}
	x->request.route = found.route;
	return keep_parameters(x, &found);
}

/* --- who asks ---------------------------------------------------------------------------------- */

/* Name and scope of the caller; false when the token does not say who that is. */
static bool find_principal(struct http_exchange *x, bool *ret_tokens)
{
	struct service *service = x->server->service;
	const char *name = "", *authorization = http_header(&x->request, "Authorization");
	pthread_rwlock_rdlock(&service->lock);
	*ret_tokens = service->tokens != NULL;
	if (!service->tokens)
		/* without tokens only those who are let in anyway: a reload may have dropped them */
		x->request.scope = x->listener->is_local ? SCOPE_ADMIN : SCOPE_NONE;
	else if (authorization)
		x->request.scope = tokens_find(service->tokens, authorization, &name);
	strncpy(x->principal, name, sizeof(x->principal) - 1);
	pthread_rwlock_unlock(&service->lock);
	return x->request.scope != SCOPE_NONE;
}

/*
 * A page of another site can make a browser send requests here, and with a name that resolves to
 * 127.0.0.1 even read the answers. Tokens stop both; without them the Host must be one of ours.
 */
static bool check_site(struct http_exchange *x, bool has_tokens)
{
	struct service *service = x->server->service;
	const char *host = http_header(&x->request, "Host");
	const char *origin = http_header(&x->request, "Origin");
	bool fine = true;
	if (!has_tokens && x->listener->is_tcp && host) {
		pthread_rwlock_rdlock(&service->lock);
		fine = screen_host(
		    host, service->settings.host.items, service->settings.host.count);
		pthread_rwlock_unlock(&service->lock);
		if (!fine)
			problem_reply(&x->response, PROBLEM_ORIGIN,
			    "The Host '%.128s' is not a name of this service; see the setting host.", host);
	}
	if (fine && origin && x->request.route->method != HTTP_GET) {
		fine = host && screen_origin(origin, host);
		if (!fine)
			problem_reply(&x->response, PROBLEM_ORIGIN,
			    "The Origin '%.128s' is another site than this service.", origin);
	}
	return fine;
}

static bool check_scope(struct http_exchange *x, bool known)
{
	enum scope needed = x->request.route->scope;
	char text[96];
	if (needed == SCOPE_NONE || x->request.scope >= needed)
		return true;
	if (!known) {
		problem_reply(&x->response, PROBLEM_TOKEN,
		    "Send the header 'Authorization: Bearer TOKEN' with a token of this service.");
		return false;
	}
	problem_reply(&x->response, PROBLEM_SCOPE, "This needs the scope %s; the token '%s' has %s.",
	    scope_name(needed), x->principal, scope_name(x->request.scope));
	snprintf(text, sizeof(text), "Bearer error=\"insufficient_scope\", scope=\"%s\"",
	    scope_name(needed));
	http_set_header(&x->response, "WWW-Authenticate", text);
	return false;
}

/* --- the body, by its headers ------------------------------------------------------------------ */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t';
}

static void read_media_type(struct http_exchange *x)
{
	const char *value = http_header(&x->request, "Content-Type");
	size_t length = value ? strcspn(value, ";") : 0;
	while (length > 0 && is_blank(value[length - 1]))
		length--;
	if (!x->has_body || length >= sizeof(x->media_type))
		return;
	for (size_t i = 0; i < length; i++)
		x->media_type[i] = value[i] >= 'A' && value[i] <= 'Z' ? (char)(value[i] | 0x20) : value[i];
	x->media_type[length] = '\0';
}

static void read_length(struct http_exchange *x)
{
	const char *length = http_header(&x->request, "Content-Length");
	x->has_body = http_header(&x->request, "Transfer-Encoding") != NULL;
	if (!length)
		return;
	/* digits by the screen; the library refused what does not fit */
	x->knows_length = true;
	x->declared = strtoull(length, NULL, 10);
	x->has_body = x->has_body || x->declared > 0;
}

static bool check_media(struct http_exchange *x)
{
	static const char *const data[] = {
	    "application/x-ndjson", "text/plain", "application/octet-stream"};
	const char *coding = http_header(&x->request, "Content-Encoding");
	bool upload = x->request.route->body == BODY_UPLOAD;
	if (coding && strcasecmp(coding, "identity") != 0) {
		problem_reply(&x->response, PROBLEM_MEDIA,
		    "The body has Content-Encoding '%.64s'; send it as it is.", coding);
		return false;
	}
	if (strcmp(x->media_type, "application/json") == 0)
		return true;
	for (size_t i = 0; upload && i < sizeof(data) / sizeof(data[0]); i++)
		if (strcmp(x->media_type, data[i]) == 0) {
			x->to_file = true;
			return true;
		}
	problem_reply(&x->response, PROBLEM_MEDIA, "The body has Content-Type '%s'; this reads %s.",
	    x->media_type,
	    upload ? "application/json, application/x-ndjson, text/plain and application/octet-stream"
		   : "application/json");
	return false;
}

static bool check_size(struct http_exchange *x)
{
	struct service *service = x->server->service;
	struct mc_error err;
	uint64_t available;
	mc_error_init(&err);
	x->limit = x->to_file ? service_setting(service, upload_bytes)
			      : service_setting(service, body_bytes);
	if (x->knows_length && x->declared > x->limit) {
		problem_reply(&x->response, PROBLEM_TOO_LARGE,
		    "The body has %llu bytes, %llu are allowed.", (unsigned long long)x->declared,
		    (unsigned long long)x->limit);
		return false;
	}
	if (x->to_file && x->knows_length &&
	    mc_file_free_bytes(service->settings.state, &available, &err) &&
	    x->declared > available) {
		problem_reply(&x->response, PROBLEM_DISK_LOW,
		    "The upload has %llu bytes, the disk has %llu free.",
		    (unsigned long long)x->declared, (unsigned long long)available);
		return false;
	}
	return true;
}

static bool check_body(struct http_exchange *x)
{
	if (!x->has_body)
		return true;
	if (x->request.route->body == BODY_NONE) {
		problem_reply(&x->response, PROBLEM_TOO_LARGE, "This takes no body.");
		return false;
	}
	return check_media(x) && check_size(x);
}

bool http_request_begin(struct http_exchange *x, const char *method, const char *version)
{
	bool has_tokens;
	x->screened = true;
	if (!screen(x, version))
		return false;
	read_length(x);
	read_media_type(x);
	if (!find_route(x, method))
		return false;
	bool known = find_principal(x, &has_tokens);
	return check_query(x) && check_site(x, has_tokens) && check_scope(x, known) && check_body(x);
}
