/*
 * screen.c - what a request must look like before anything of it is believed
 *
 * Two programs that read the same bytes differently are the root of request smuggling: whatever
 * could be read in two ways is refused here rather than mended.
 */
#include "screen.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define REQUEST "request"

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* isalnum() asks the locale. */
static bool is_word(char c)
{
	return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_one_of(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

static bool is_hex(char c)
{
	return is_digit(c) || is_one_of(c, "abcdefABCDEF");
}

/* --- what is said of the client's bytes ---------------------------------------------------- */

struct shown {
	char text[40];
};

/* The client chose these bytes, and the sentence may end in a terminal: only what prints is kept.
 */
static const char *show(const char *value, struct shown *shown)
{
	size_t length = strnlen(value, sizeof(shown->text) - 1);
	for (size_t i = 0; i < length; i++)
		shown->text[i] = value[i] >= ' ' && value[i] <= '~' ? value[i] : '?';
	shown->text[length] = '\0';
	return shown->text;
}

static const char *show_byte(char c, struct shown *shown)
{
	if (c > ' ' && c <= '~')
		snprintf(shown->text, sizeof(shown->text), "'%c'", c);
	else
		snprintf(shown->text, sizeof(shown->text), "the byte 0x%02x", (unsigned char)c);
	return shown->text;
}

/* --- the request line ---------------------------------------------------------------------- */

static bool check_version(const char *version, struct mc_error *err)
{
	struct shown shown;
	if (strcmp(version, "HTTP/1.1") == 0 || strcmp(version, "HTTP/1.0") == 0)
		return true;
	return mc_fail(err, MC_INVALID, REQUEST,
	    "The version is '%s'; HTTP/1.1 or HTTP/1.0 is needed.", show(version, &shown));
}

/* Escapes are refused here: then every path has one spelling, and %2F and %2E have none. */
static bool check_path(const char *path, size_t length, struct mc_error *err)
{
	struct shown shown;
	if (path[0] != '/')
		return mc_fail(err, MC_INVALID, REQUEST,
		    "The target is '%s'; it must begin with '/'.", show(path, &shown));
	for (size_t i = 0; i < length; i++)
		if (!is_word(path[i]) && !is_one_of(path[i], "/_.~=&,+-"))
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The path holds %s; it may hold letters, digits and /_.~=&,+-.",
			    show_byte(path[i], &shown));
	for (size_t at = 1; at < length;) {
		size_t part = strcspn(path + at, "/?");
		if (part == 0)
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The path holds '//'; its parts must not be empty.");
		if (part <= 2 && strncmp(path + at, "..", part) == 0)
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The path has the part '%.*s'; name what is meant without it.",
			    (int)part, path + at);
		at += part + 1;
	}
	return true;
}

/* The library cuts strings at an escaped NUL. */
static bool check_query(const char *query, struct mc_error *err)
{
	struct shown shown;
	for (const char *at = query; *at != '\0'; at++) {
		if (is_word(*at) || is_one_of(*at, "/_.~?=&,+-:*"))
			continue;
		if (*at != '%')
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The query holds %s; it may hold letters, digits, /_.~?=&,+-:* and "
			    "%%XX.",
			    show_byte(*at, &shown));
		if (!is_hex(at[1]) || !is_hex(at[2]))
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The query holds a '%%' without two hexadecimal digits; they are "
			    "needed.");
		if (at[1] == '0' && at[2] == '0')
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The query holds %%00; it must be text without NUL.");
	}
	return true;
}

static bool check_target(const char *uri, struct mc_error *err)
{
	size_t path = strcspn(uri, "?");
	if (strnlen(uri, SCREEN_MAX_URI + 1) > SCREEN_MAX_URI)
		return mc_fail(err, MC_INVALID, REQUEST,
		    "The target has more than %d bytes; that many are allowed.", SCREEN_MAX_URI);
	return check_path(uri, path, err) && check_query(uri + path, err);
}

/* --- headers ------------------------------------------------------------------------------- */

static bool check_header(const struct screen_header *header, size_t number, struct mc_error *err)
{
	struct shown shown;
	if (header->name[0] == '\0')
		return mc_fail(
		    err, MC_INVALID, REQUEST, "Header %zu has no name; it needs one.", number);
	for (const char *at = header->name; *at != '\0'; at++)
		if (!is_word(*at) && !is_one_of(*at, "!#$%&'*+-.^_`|~"))
			return mc_fail(err, MC_INVALID, REQUEST,
			    "The name of header %zu holds %s; it may hold letters, digits and "
			    "!#$%%&'*+-.^_`|~.",
			    number, show_byte(*at, &shown));
	for (const char *at = header->value; *at != '\0'; at++)
		if (((unsigned char)*at < ' ' && *at != '\t') || *at == 0x7f)
			return mc_fail(err, MC_INVALID, header->name,
			    "%.64s holds %s; a value has no control characters.", header->name,
			    show_byte(*at, &shown));
	return true;
}

/* The library uses the first of several, somebody in front perhaps the last. */
static bool check_once(const struct screen_header *headers, size_t count, struct mc_error *err)
{
	static const char *const once[] = {"Host", "Content-Length", "Transfer-Encoding",
	    "Content-Type", "Authorization", "Accept", "If-None-Match", "Range", "Idempotency-Key",
	    "Last-Event-ID", "Origin", "Expect"};
	unsigned seen = 0;
	for (size_t i = 0; i < count; i++)
		for (size_t k = 0; k < sizeof(once) / sizeof(once[0]); k++) {
			if (strcasecmp(headers[i].name, once[k]) != 0)
				continue;
			if (seen >> k & 1)
				return mc_fail(err, MC_INVALID, once[k],
				    "%s is there more than once; send it once.", once[k]);
			seen |= 1u << k;
		}
	return true;
}

static const char *find(const struct screen_header *headers, size_t count, const char *name)
{
	for (size_t i = 0; i < count; i++)
		if (strcasecmp(headers[i].name, name) == 0)
			return headers[i].value;
	return NULL;
}

/* Where the body ends must be said in one way, and in the only spelling that we look for. */
static bool check_framing(const struct screen_header *headers, size_t count, struct mc_error *err)
{
	const char *length = find(headers, count, "Content-Length");
	const char *coding = find(headers, count, "Transfer-Encoding");
	struct shown shown;
	if (length && coding)
		return mc_fail(err, MC_INVALID, "Content-Length",
		    "Content-Length and Transfer-Encoding are both there; send one of them.");
	if (length && (length[0] == '\0' || length[strspn(length, "0123456789")] != '\0'))
		return mc_fail(err, MC_INVALID, "Content-Length",
		    "Content-Length is '%s'; digits are needed and nothing else.",
		    show(length, &shown));
	if (coding && strcmp(coding, "chunked") != 0)
		return mc_fail(err, MC_INVALID, "Transfer-Encoding",
		    "Transfer-Encoding is '%s'; only 'chunked' is known.", show(coding, &shown));
	return true;
}

bool screen_request(const char *version, const char *raw_uri, const struct screen_header *headers,
    size_t count, struct mc_error *err)
{
	struct shown shown;
	if (!check_version(version, err) || !check_target(raw_uri, err))
		return false;
	if (count > SCREEN_MAX_HEADERS)
		return mc_fail(err, MC_INVALID, REQUEST,
		    "There are more than %d headers; that many are allowed.", SCREEN_MAX_HEADERS);
	for (size_t i = 0; i < count; i++)
		if (!check_header(&headers[i], i + 1, err))
			return false;
	if (!check_once(headers, count, err) || !check_framing(headers, count, err))
		return false;
	if (strcmp(version, "HTTP/1.1") == 0 && !find(headers, count, "Host"))
		return mc_fail(err, MC_INVALID, "Host", "Host is missing; HTTP/1.1 needs it.");
	const char *expect = find(headers, count, "Expect");
	if (expect && strcasecmp(expect, "100-continue") != 0)
		return mc_fail(err, MC_INVALID, "Expect",
		    "Expect is '%s'; only '100-continue' can be met.", show(expect, &shown));
	return true;
}

/* --- whose name was asked for -------------------------------------------------------------- */

struct authority {
	const char *name; /* with the brackets, when it has them */
	size_t length;
	bool is_six;
	struct in6_addr six;
	unsigned port; /* 0: none is named */
};

static bool read_port(const char *text, unsigned *ret)
{
	size_t digits = strspn(text, "0123456789");
	unsigned port = 0;
	if (digits == 0 || digits > 5 || text[digits] != '\0')
		return false;
	for (size_t i = 0; i < digits; i++)
		port = port * 10 + (unsigned)(text[i] - '0');
	*ret = port;
	return port > 0 && port <= 65535;
}

static bool read_six(struct authority *a)
{
	char inner[INET6_ADDRSTRLEN];
	if (a->length < 2 || a->length - 2 >= sizeof(inner))
		return false;
	memcpy(inner, a->name + 1, a->length - 2);
	inner[a->length - 2] = '\0';
	a->is_six = true;
	return inet_pton(AF_INET6, inner, &a->six) == 1;
}

/* Labels between dots. A dot at the end is refused: one name, one spelling. */
static bool is_name(const char *name, size_t length)
{
	size_t label = 0;
	for (size_t i = 0; i < length; i++) {
		if (name[i] == '.' ? label == 0 : !is_word(name[i]) && !is_one_of(name[i], "-_"))
			return false;
		label = name[i] == '.' ? 0 : label + 1;
	}
	return label > 0;
}

static bool read_authority(const char *text, struct authority *ret)
{
	*ret = (struct authority){.name = text};
	if (text[0] == '[') {
		const char *end = strchr(text, ']');
		ret->length = end ? (size_t)(end - text) + 1 : 0;
		if (!read_six(ret))
			return false;
	} else {
		ret->length = strcspn(text, ":");
		if (!is_name(text, ret->length))
			return false;
	}
	const char *rest = text + ret->length;
	return *rest == '\0' || (*rest == ':' && read_port(rest + 1, &ret->port));
}

static bool same_name(const struct authority *a, const struct authority *b)
{
	if (a->is_six || b->is_six)
		return a->is_six && b->is_six && memcmp(&a->six, &b->six, sizeof(a->six)) == 0;
	return a->length == b->length && strncasecmp(a->name, b->name, a->length) == 0;
}

/* By what is written, never by a look-up: a name of somebody else's may resolve to 127.0.0.1. */
static bool is_loopback(const struct authority *a)
{
	static const char local[] = "localhost";
	size_t suffix = sizeof(local) - 1;
	char text[INET_ADDRSTRLEN];
	struct in_addr four;
	if (a->is_six)
		return memcmp(&a->six, &in6addr_loopback, sizeof(a->six)) == 0;
	if (a->length >= suffix && strncasecmp(a->name + a->length - suffix, local, suffix) == 0)
		return a->length == suffix || a->name[a->length - suffix - 1] == '.';
	if (a->length >= sizeof(text))
		return false;
	memcpy(text, a->name, a->length);
	text[a->length] = '\0';
	return inet_pton(AF_INET, text, &four) == 1 && ntohl(four.s_addr) >> 24 == 127;
}

bool screen_host(const char *host, char *const *allowed, size_t allowed_count)
{
	struct authority asked, ours;
	if (!host || !read_authority(host, &asked))
		return false;
	if (is_loopback(&asked))
		return true;
	for (size_t i = 0; i < allowed_count; i++)
		if (read_authority(allowed[i], &ours) && same_name(&asked, &ours))
			return true;
	return false;
}

bool screen_origin(const char *origin, const char *host)
{
	static const struct {
		const char *prefix;
		unsigned port;
	} schemes[] = {{"http://", 80}, {"https://", 443}};
	for (size_t i = 0; origin && host && i < sizeof(schemes) / sizeof(schemes[0]); i++) {
		size_t length = strlen(schemes[i].prefix);
		struct authority from, to;
		if (strncasecmp(origin, schemes[i].prefix, length) != 0)
			continue;
		if (!read_authority(origin + length, &from) || !read_authority(host, &to))
			return false;
		/* a Host without a port was asked over the scheme of the page: its port is meant */
		return same_name(&from, &to) && (from.port ? from.port : schemes[i].port) ==
						    (to.port ? to.port : schemes[i].port);
	}
	return false;
}
