/*
 * router.c - patterns of the routes table against paths
 */
#include "router.h"

#include <string.h>

const char *http_method_name(enum http_method method)
{
	switch (method) {
	case HTTP_GET:
		return "GET";
	case HTTP_POST:
		return "POST";
	case HTTP_DELETE:
		return "DELETE";
	}
	return "";
}

static bool is_name_byte(char c)
{
	return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
	       c == '.' || c == '_' || c == '-';
}

static bool is_dots(const char *text, size_t length)
{
	return (length == 1 && text[0] == '.') || (length == 2 && text[0] == '.' && text[1] == '.');
}

/* The segment at the start of path, or length 0 when it is not one that {x} stands for. */
static struct router_span take_segment(const char *path)
{
	size_t length = 0;
	while (is_name_byte(path[length]))
		length++;
	if (is_dots(path, length))
		length = 0;
	return (struct router_span){path, length};
}

/* All of path, or length 0 when one of its segments is empty or made of dots. */
static struct router_span take_rest(const char *path)
{
	const char *segment = path;
	for (;;) {
		size_t length = strcspn(segment, "/");
		if (length == 0 || is_dots(segment, length))
			return (struct router_span){path, 0};
		segment += length;
		if (*segment == '\0')
			return (struct router_span){path, (size_t)(segment - path)};
		segment++;
	}
}

bool router_match(const char *pattern, const char *path,
    struct router_span ret_parameters[MAX_PARAMETERS], size_t *ret_count)
{
	size_t count = 0;
	while (*pattern != '\0') {
		if (*pattern != '{') {
			if (*pattern != *path)
				return false;
			pattern++;
			path++;
			continue;
		}
		const char *end = strchr(pattern, '}');
		if (!end || count == MAX_PARAMETERS)
			return false;
		bool rest = end - pattern > 3 && memcmp(end - 3, "...", 3) == 0;
		struct router_span span = rest ? take_rest(path) : take_segment(path);
		if (span.length == 0)
			return false;
		ret_parameters[count++] = span;
		path += span.length;
		pattern = end + 1;
	}
	if (*path != '\0')
		return false;
	*ret_count = count;
	return true;
}

static bool fits_method(enum http_method wanted, const char *method)
{
	return strcmp(method, http_method_name(wanted)) == 0 ||
	       (wanted == HTTP_GET && strcmp(method, "HEAD") == 0);
}

static void write_allow(unsigned methods, char allow[32])
{
	static const struct {
		enum http_method method;
		const char *text;
	} names[] = {{HTTP_GET, "GET, HEAD"}, {HTTP_POST, "POST"}, {HTTP_DELETE, "DELETE"}};
	size_t at = 0;
	allow[0] = '\0';
	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
		if (!(methods & 1u << names[i].method))
			continue;
		if (at > 0) {
			memcpy(allow + at, ", ", 2);
			at += 2;
		}
		size_t length = strlen(names[i].text);
		memcpy(allow + at, names[i].text, length + 1);
		at += length;
	}
}

enum router_outcome router_find(const struct route *table, const char *method, const char *path,
    struct router_found *ret)
{
	unsigned methods = 0;
	memset(ret, 0, sizeof(*ret));
	for (const struct route *route = table; route->pattern; route++) {
		struct router_span parameters[MAX_PARAMETERS];
		size_t count;
		if (!router_match(route->pattern, path, parameters, &count))
			continue;
		methods |= 1u << route->method;
		if (ret->route || !fits_method(route->method, method))
			continue;
		ret->route = route;
		ret->count = count;
		memcpy(ret->parameters, parameters, count * sizeof(parameters[0]));
	}
	write_allow(methods, ret->allow);
	if (ret->route)
		return ROUTER_FOUND;
	return methods ? ROUTER_NO_METHOD : ROUTER_NO_PATH;
}
