/*
 * fuzz_screen.c - any bytes as a request, cut at each NUL: version, target, then names and values
 *
 * Whatever is accepted must keep the promises of screen.h, looked at in another way than there;
 * whatever is refused must say why in text that prints.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "screen.h"

#define MOST (SCREEN_MAX_HEADERS + 8)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Bytes below the space (a tab may be fine) and DEL. */
static bool has_control(const char *text, bool tab_is_fine)
{
	for (; *text != '\0'; text++)
		if (((unsigned char)*text < ' ' && !(tab_is_fine && *text == '\t')) ||
		    *text == 0x7f)
			return true;
	return false;
}

static size_t count_of(const struct screen_header *headers, size_t count, const char *name)
{
	size_t found = 0;

	for (size_t i = 0; i < count; i++)
		found += strcasecmp(headers[i].name, name) == 0;
	return found;
}

static void check_target(const char *uri)
{
	size_t path = strcspn(uri, "?");
	const char *escape = strchr(uri, '%'), *empty = strstr(uri, "//"),
		   *up = strstr(uri, "/../");

	mc_assert(uri[0] == '/' && strlen(uri) <= SCREEN_MAX_URI);
	mc_assert(!has_control(uri, false) && strpbrk(uri, " \"#<>\\^`{|}") == NULL);
	mc_assert(strstr(uri, "%00") == NULL);
	mc_assert(escape == NULL || escape > uri + path);
	mc_assert(empty == NULL || empty > uri + path);
	mc_assert(up == NULL || up > uri + path);
	for (const char *at = uri; *at != '\0'; at++)
		mc_assert((unsigned char)*at < 0x80);
}

static void check_headers(const char *version, const struct screen_header *headers, size_t count)
{
	static const char *const once[] = {"Content-Length", "Transfer-Encoding", "Host",
	    "Content-Type", "Authorization", "Accept", "If-None-Match", "Range", "Idempotency-Key",
	    "Last-Event-ID", "Origin", "Expect"};

	mc_assert(count <= SCREEN_MAX_HEADERS);
	for (size_t i = 0; i < count; i++) {
		mc_assert(headers[i].name[0] != '\0' && !has_control(headers[i].name, false));
		mc_assert(strpbrk(headers[i].name, " :,;") == NULL);
		mc_assert(!has_control(headers[i].value, true));
		if (strcasecmp(headers[i].name, "Content-Length") == 0)
			mc_assert(
			    headers[i].value[0] != '\0' &&
			    strspn(headers[i].value, "0123456789") == strlen(headers[i].value));
		if (strcasecmp(headers[i].name, "Transfer-Encoding") == 0)
			mc_assert(strcmp(headers[i].value, "chunked") == 0);
	}
	for (size_t k = 0; k < sizeof once / sizeof *once; k++)
		mc_assert(count_of(headers, count, once[k]) <= 1);
	mc_assert(count_of(headers, count, once[0]) + count_of(headers, count, once[1]) <= 1);
	mc_assert(strcmp(version, "HTTP/1.0") == 0 || count_of(headers, count, "Host") == 1);
}

static void check_site(const char *origin, const char *host)
{
	char *copy = strdup(host);

	if (copy == NULL)
		return;
	/* a host that is its own list is accepted when it is well-formed */
	bool formed = screen_host(host, &copy, 1);
	free(copy);
	mc_assert(!formed ||
		  (host[0] != '\0' && !has_control(host, false) && strpbrk(host, " /@,") == NULL));
	if (screen_host(host, NULL, 0))
		mc_assert(formed && (strcasestr(host, "localhost") != NULL ||
					strncmp(host, "127.", 4) == 0 || host[0] == '['));
	if (screen_origin(origin, host))
		mc_assert(formed && strncasecmp(origin, "http", 4) == 0 &&
			  !has_control(origin, false) && strchr(origin, '@') == NULL);
}

/* The next string of those that NULs divide; "" behind the last. */
static const char *next(const char **at, const char *end)
{
	const char *text = *at;

	if (text >= end)
		return "";
	*at = text + strlen(text) + 1;
	return text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct screen_header headers[MOST];
	struct mc_error err;
	char *bytes = malloc(size + 1);
	size_t count = 0;

	if (bytes == NULL)
		return 0;
	memcpy(bytes, data, size);
	bytes[size] = '\0';
	const char *at = bytes, *end = bytes + size;
	const char *version = next(&at, end), *uri = next(&at, end);
	while (at < end && count < MOST) {
		headers[count].name = next(&at, end);
		headers[count++].value = next(&at, end);
	}
	mc_error_init(&err);
	if (screen_request(version, uri, headers, count, &err)) {
		mc_assert(strcmp(version, "HTTP/1.1") == 0 || strcmp(version, "HTTP/1.0") == 0);
		check_target(uri);
		check_headers(version, headers, count);
	} else {
		mc_assert(err.code == MC_INVALID && err.where[0] != '\0' && err.text[0] != '\0');
		mc_assert(!has_control(err.where, false) && !has_control(err.text, false));
	}
	for (size_t i = 0; i < count; i++)
		check_site(headers[i].name, headers[i].value);
	check_site(version, uri);
	free(bytes);
	return 0;
}
