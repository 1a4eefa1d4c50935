/*
 * settings_values.c - what a setting may be: numbers with units, flags, addresses to listen on
 */
#include "settings_parts.h"

#include <arpa/inet.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/un.h>

#include "log.h"

#include "moecal/alloc.h"

/* --- numbers ------------------------------------------------------------------------------------
 */

struct unit {
	char letter;
	uint64_t factor;
};

/* Largest first, ended by a letter 0. */
static const struct unit no_units[] = {{0, 0}};
static const struct unit sizes[] = {{'T', (uint64_t)1 << 40}, {'G', (uint64_t)1 << 30},
    {'M', (uint64_t)1 << 20}, {'K', (uint64_t)1 << 10}, {0, 0}};
static const struct unit times[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}, {0, 0}};

static const struct unit *units_of(enum setting_kind kind)
{
	return kind == KIND_BYTES ? sizes : kind == KIND_SECONDS ? times : no_units;
}

static bool parse_number(const char *text, const struct unit *units, uint64_t *ret_value)
{
	uint64_t value = 0;
	const char *at = text;

	for (; *at >= '0' && *at <= '9'; at++)
		if (!mc_mul(value, 10, &value) || !mc_add(value, (uint64_t)(*at - '0'), &value))
			return false;
	*ret_value = value;
	if (at == text || *at == '\0')
		return at != text;
	for (; units->letter != 0; units++)
		if (*at == units->letter && at[1] == '\0')
			return mc_mul(value, units->factor, ret_value);
	return false;
}

static void format_number(uint64_t value, const struct unit *units, char text[32])
{
	for (; value > 0 && units->letter != 0; units++)
		if (units->factor > 1 && value % units->factor == 0) {
			snprintf(text, 32, "%" PRIu64 "%c", value / units->factor, units->letter);
			return;
		}
	snprintf(text, 32, "%" PRIu64, value);
}

/* What a number of this row must be: "a size from 1K to 64M, such as 512M". */
static void describe_range(const struct setting_row *row, char text[160])
{
	char least[32], most[32];
	const char *noun = "a whole number", *example = "";

	if (row->kind == KIND_BYTES) {
		noun = "a size";
		example = " (K, M, G, T are powers of 1024)";
	} else if (row->kind == KIND_SECONDS) {
		noun = "a time";
		example = " (s, m, h or d behind it, or seconds)";
	}
	format_number(row->least, units_of(row->kind), least);
	format_number(row->most, units_of(row->kind), most);
	if (row->most >= INT64_MAX)
		snprintf(text, 160, "%s, at least %s%s", noun, least, example);
	else
		snprintf(text, 160, "%s from %s to %s%s", noun, least, most, example);
}

bool settings_parse_number(const struct setting_row *row, const char *value,
    const struct setting_place *place, uint64_t *ret_number, struct mc_error *err)
{
	char needed[160];

	if (parse_number(value, units_of(row->kind), ret_number) && *ret_number >= row->least &&
	    *ret_number <= row->most)
		return true;
	describe_range(row, needed);
	return mc_fail(err, MC_INVALID, place->where, "%sis '%.80s', needed is %s", place->prefix,
	    value, needed);
}

/* --- words -------------------------------------------------------------------------------------
 */

bool settings_parse_flag(
    const char *value, const struct setting_place *place, bool *ret_flag, struct mc_error *err)
{
	*ret_flag = strcmp(value, "true") == 0;
	return *ret_flag || strcmp(value, "false") == 0 ||
	       mc_fail(err, MC_INVALID, place->where, "%sis '%.80s', needed is true or false",
		   place->prefix, value);
}

bool settings_check_text(const char *value, const struct setting_place *place, struct mc_error *err)
{
	if (value[0] == '\0')
		return mc_fail(err, MC_INVALID, place->where, "%shas no value", place->prefix);
	for (const char *at = value; *at != '\0'; at++)
		if ((unsigned char)*at < 0x20 || *at == 0x7f)
			return mc_fail(err, MC_INVALID, place->where,
			    "%sholds a control character (byte %d)", place->prefix, *at);
	return true;
}

static bool check_log_level(const struct settings *settings, struct mc_error *err)
{
	static const char *const names[] = {"debug", "info", "warning", "error"};
	enum log_level level;

	if (log_level_parse(settings->log_level, &level))
		return true;
	struct setting_place place = settings_place_of(settings, &settings_rows[ROW_log_level], 0);
	const char *nearest = mc_nearest(
	    settings->log_level, names, sizeof(names) / sizeof(names[0]));
	return mc_fail(err, MC_INVALID, place.where,
	    "%sis '%.80s', needed is debug, info, warning or error%s%s%s", place.prefix,
	    settings->log_level, nearest ? "; is " : "", nearest ? nearest : "",
	    nearest ? " meant?" : "");
}

/* --- addresses ---------------------------------------------------------------------------------
 */

static bool is_port(const char *text)
{
	size_t length = strspn(text, "0123456789");
	uint64_t port = 0;

	return length > 0 && length <= 5 && text[length] == '\0' &&
	       parse_number(text, no_units, &port) && port <= 65535;
}

static bool check_unix(const char *path, const struct setting_place *place, struct mc_error *err)
{
	size_t most = sizeof(((struct sockaddr_un *)0)->sun_path) - 1;

	if (path[0] != '/')
		return mc_fail(err, MC_INVALID, place->where,
		    "%sis 'unix:%.80s', needed is unix: and a path from the root", place->prefix,
		    path);
	return strlen(path) <= most || mc_fail(err, MC_INVALID, place->where,
					   "%sis a path of %zu bytes, a socket has at most %zu",
					   place->prefix, strlen(path), most);
}

/* HOST of "HOST:PORT". Names are not looked up here, and what a name means may change: localhost is
 * the only one that is certain to stay on this machine. */
static bool parse_host(const char *host, bool *ret_loopback)
{
	struct in_addr four;
	struct in6_addr six;
	char inner[INET6_ADDRSTRLEN];
	size_t length = strlen(host);

	*ret_loopback = true;
	if (strcmp(host, "localhost") == 0)
		return true;
	if (inet_pton(AF_INET, host, &four) == 1) {
		*ret_loopback = ntohl(four.s_addr) >> 24 == 127;
		return true;
	}
	if (length < 2 || length - 2 >= sizeof(inner) || host[0] != '[' || host[length - 1] != ']')
		return false;
	snprintf(inner, sizeof(inner), "%.*s", (int)(length - 2), host + 1);
	if (inet_pton(AF_INET6, inner, &six) != 1)
		return false;
	*ret_loopback = IN6_IS_ADDR_LOOPBACK(&six);
	return true;
}

static bool check_tcp(const struct settings *settings, const char *listener,
    const struct setting_place *place, struct mc_error *err)
{
	const char *colon = strrchr(listener, ':');
	char host[128] = "";
	bool loopback = false;

	if (colon && (size_t)(colon - listener) < sizeof(host))
		snprintf(host, sizeof(host), "%.*s", (int)(colon - listener), listener);
	if (!colon || !is_port(colon + 1) || !parse_host(host, &loopback))
		return mc_fail(err, MC_INVALID, place->where,
		    "%sis '%.80s', needed is ADDRESS:PORT such as 127.0.0.1:8460, [::1]:8460 or "
		    "localhost:8460, unix:/PATH or systemd",
		    place->prefix, listener);
	return loopback || settings->token_file ||
	       mc_fail(err, MC_INVALID, place->where,
		   "%sis '%s', which other machines can reach: a token_file is needed",
		   place->prefix, listener);
}

static bool check_listeners(const struct settings *settings, struct mc_error *err)
{
	bool passed = false;

	for (size_t i = 0; i < settings->listen.count; i++) {
		const char *listener = settings->listen.items[i];
		struct setting_place place = settings_place_of(
		    settings, &settings_rows[ROW_listen], i);

		if (strcmp(listener, "systemd") == 0) {
			/* it stands for all sockets that were passed, which can be taken once */
			if (passed)
				return mc_fail(err, MC_INVALID, place.where,
				    "%sis systemd a second time", place.prefix);
			passed = true;
		} else if (strncmp(listener, "unix:", 5) == 0) {
			if (!check_unix(listener + 5, &place, err))
				return false;
		} else if (!check_tcp(settings, listener, &place, err)) {
			return false;
		}
	}
	return true;
}

bool settings_check_all(const struct settings *settings, struct mc_error *err)
{
	return check_listeners(settings, err) && check_log_level(settings, err);
}
