/*
 * settings_sources.c - settings as people write them: config file and command line
 */
#include "settings_parts.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/file.h"

#define CONFIG_BYTES ((size_t)1 << 20) /* far more than a config file has */

/* --- the config file ---------------------------------------------------------------------------
 */

static bool is_blank(char c)
{
	return c == ' ' || c == '\t' || c == '\r';
}

static char *trim(char *text)
{
	size_t length;

	while (is_blank(*text))
		text++;
	for (length = strlen(text); length > 0 && is_blank(text[length - 1]); length--)
		text[length - 1] = '\0';
	return text;
}

/* A value in double quotes, unquoted in place; behind it only a comment may follow. */
static bool unquote(char *text, const struct setting_place *place, struct mc_error *err)
{
	char *to = text, *from = text + 1;

	while (*from != '"') {
		if (*from == '\\' && (from[1] == '"' || from[1] == '\\'))
			from++;
		if (*from == '\0')
			return mc_fail(err, MC_INVALID, place->where,
			    "%sa quote is opened and not closed", place->prefix);
		*to++ = *from++;
	}
	*to = '\0';
	from = trim(from + 1);
	return *from == '\0' || *from == '#' ||
	       mc_fail(err, MC_INVALID, place->where, "%s'%.80s' stands behind the closing quote",
		   place->prefix, from);
}

static void cut_comment(char *text)
{
	for (char *at = text; *at != '\0'; at++)
		if (*at == '#' && (at == text || is_blank(at[-1]))) {
			*at = '\0';
			return;
		}
}

static bool fail_unknown_in_file(
    const char *name, const struct setting_place *place, struct mc_error *err)
{
	const char *names[ROWS];

	for (size_t i = 0; i < ROWS; i++)
		names[i] = settings_rows[i].name;
	const char *nearest = mc_nearest(name, names, ROWS);
	return mc_fail(err, MC_INVALID, place->where, "'%.64s' is not a setting%s%s%s", name,
	    nearest ? "; is " : "", nearest ? nearest : "", nearest ? " meant?" : "");
}

static bool read_line(struct settings *settings, char *line, size_t number, struct mc_error *err)
{
	struct setting_place place = settings_place_in_file(settings->config, number, NULL);
	char *name = trim(line), *equals = strchr(name, '=');

	if (*name == '\0' || *name == '#')
		return true;
	if (!equals)
		return mc_fail(err, MC_INVALID, place.where,
		    "'%.64s' is not a line of the form 'name = value'", name);
	*equals = '\0';
	name = trim(name);
	const struct setting_row *row = settings_find_row(name);
	if (!row)
		return fail_unknown_in_file(name, &place, err);
	place = settings_place_in_file(settings->config, number, row->name);
	char *value = trim(equals + 1);
	if (*value == '"') {
		if (!unquote(value, &place, err))
			return false;
	} else {
		cut_comment(value);
		value = trim(value);
	}
	return settings_set(settings, row, &place, value, err);
}

static bool read_lines(struct settings *settings, struct mc_buf *text, struct mc_error *err)
{
	size_t number = 0;
	char *rest = text->data;

	if (memchr(text->data, '\0', text->length) != NULL)
		return mc_fail(
		    err, MC_INVALID, settings->config, "is not a text: it holds a byte 0");
	while (rest) {
		char *line = strsep(&rest, "\n");

		if (!read_line(settings, line, ++number, err))
			return false;
	}
	return true;
}

bool settings_read_file(struct settings *settings, struct mc_error *err)
{
	struct mc_buf text;
	int fd = open(settings->config, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return mc_fail_errno(err, errno, settings->config, "cannot be opened");
	mc_buf_init(&text, CONFIG_BYTES);
	bool ok = mc_file_read_all(fd, settings->config, &text, err) &&
		  read_lines(settings, &text, err);
	mc_buf_release(&text);
	mc_close(fd);
	return ok;
}

/* --- the command line --------------------------------------------------------------------------
 */

static bool fail_unknown_option(const char *name, const char *where, struct mc_error *err)
{
	const char *names[ROWS + ACTIONS + 1] = {"config"};
	char option[SETTINGS_NAME_SIZE] = "";

	for (size_t i = 0; i < ROWS; i++)
		names[1 + i] = settings_rows[i].name;
	for (size_t i = 0; i < ACTIONS; i++)
		names[1 + ROWS + i] = settings_actions[i].name;
	const char *nearest = mc_nearest(name, names, sizeof(names) / sizeof(names[0]));
	if (nearest)
		settings_option(nearest, option);
	return mc_fail(err, MC_INVALID, where, "is not an option%s%s%s", nearest ? "; is " : "",
	    option, nearest ? " meant?" : "");
}

/* The value behind '=', else the next word. */
static const char *take_value(struct settings_arguments *arguments, const char *inlined,
    const char *where, struct mc_error *err)
{
	if (inlined)
		return inlined;
	if (arguments->next < arguments->count &&
	    strncmp(arguments->words[arguments->next], "--", 2) != 0)
		return arguments->words[arguments->next++];
	mc_fail(err, MC_INVALID, where, "needs a value");
	return NULL;
}

static bool take_config(struct settings *settings, struct settings_arguments *arguments,
    const char *inlined, struct mc_error *err)
{
	const char *value = take_value(arguments, inlined, "--config", err);

	if (!value || arguments->second)
		return value != NULL;
	if (settings->config)
		return mc_fail(err, MC_INVALID, "--config", "comes twice; one file is read");
	settings->config = value;
	return true;
}

static bool take_action(struct settings *settings, struct settings_arguments *arguments,
    const struct setting_action *action, const char *inlined, struct mc_error *err)
{
	char option[SETTINGS_NAME_SIZE], other[SETTINGS_NAME_SIZE];

	settings_option(action->name, option);
	if (inlined)
		return mc_fail(err, MC_INVALID, option, "takes no value behind '='");
	if (!arguments->second && arguments->action && arguments->action != action)
		return mc_fail(err, MC_INVALID, option,
		    "and %s are asked for; only one can be done",
		    settings_option(arguments->action->name, other));
	arguments->action = action;
	if (action->action != SETTINGS_MAKE_TOKEN)
		return true;
	settings->token_name = take_value(arguments, NULL, option, err);
	settings->token_scope = settings->token_name ? take_value(arguments, NULL, option, err)
						     : NULL;
	return settings->token_scope != NULL;
}

static bool take_row(struct settings *settings, struct settings_arguments *arguments,
    const struct setting_row *row, const char *inlined, struct mc_error *err)
{
	struct setting_place place = settings_place_on_command_line(row->name);
	const char *next = arguments->next < arguments->count ? arguments->words[arguments->next]
							      : "";
	const char *value = inlined;

	/* a flag alone means true */
	if (row->kind == KIND_FLAG && !inlined && strcmp(next, "true") != 0 &&
	    strcmp(next, "false") != 0)
		value = "true";
	value = take_value(arguments, value, place.where, err);
	return value && (!arguments->second || settings_set(settings, row, &place, value, err));
}

static bool take_word(
    struct settings *settings, struct settings_arguments *arguments, struct mc_error *err)
{
	const char *word = arguments->words[arguments->next++];
	char name[SETTINGS_NAME_SIZE], where[SETTINGS_NAME_SIZE];

	if (strcmp(word, "-h") == 0)
		word = "--help";
	size_t length = strcspn(word, "=");
	const char *inlined = word[length] == '=' ? word + length + 1 : NULL;
	snprintf(where, sizeof(where), "%.*s",
	    length < SETTINGS_NAME_SIZE ? (int)length : SETTINGS_NAME_SIZE - 1, word);
	if (strncmp(word, "--", 2) != 0 || length == 2)
		return mc_fail(err, MC_INVALID, where, "is not an option; see --help");
	snprintf(name, sizeof(name), "%s", where + 2);
	for (char *at = name; *at != '\0'; at++)
		if (*at == '-')
			*at = '_';
	if (strcmp(name, "config") == 0)
		return take_config(settings, arguments, inlined, err);
	for (size_t i = 0; i < ACTIONS; i++)
		if (strcmp(name, settings_actions[i].name) == 0)
			return take_action(settings, arguments, &settings_actions[i], inlined, err);
	const struct setting_row *row = settings_find_row(name);
	if (!row)
		return fail_unknown_option(name, where, err);
	return take_row(settings, arguments, row, inlined, err);
}

bool settings_are_needed(const struct setting_action *action)
{
	return !action || (action->action != SETTINGS_HELP && action->action != SETTINGS_VERSION &&
			      action->action != SETTINGS_MAKE_TOKEN);
}

bool settings_read_arguments(
    struct settings *settings, struct settings_arguments *arguments, struct mc_error *err)
{
	arguments->next = 1;
	while (arguments->next < arguments->count && settings_are_needed(arguments->action))
		if (!take_word(settings, arguments, err))
			return false;
	return true;
}
