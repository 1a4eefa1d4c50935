/*
 * settings.c - the table of settings: defaults, what replaces what, printing, reload
 */
#include "settings_parts.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

/* --- the table ---------------------------------------------------------------------------------
 */

const struct setting_row settings_rows[ROWS] = {
#define X(field, kind, initial, least, most, reloadable, help)                                     \
	{#field, KIND_##kind, initial, least, most, reloadable, help,                              \
	    offsetof(struct settings, field)},
    SETTINGS(X)
#undef X
};

const struct setting_action settings_actions[ACTIONS] = {
    {"print_config", SETTINGS_PRINT, "", "print every setting and where its value comes from"},
    {"check_config", SETTINGS_CHECK, "", "say whether the settings are valid"},
    {"make_token", SETTINGS_MAKE_TOKEN, " NAME SCOPE",
	"print a new token and its line for the token file; SCOPE is read, submit or admin"},
    {"help", SETTINGS_HELP, "", "print this text"},
    {"version", SETTINGS_VERSION, "", "print the version"},
};

struct given {
	char *text; /* as it was written; owned */
	size_t line;
};

/* Where a row came from. The texts stay as they were given, whatever becomes of the fields: a path
 * may be replaced by the real one, and a reload compares what people wrote. */
struct source {
	enum setting_from from;
	struct given *items;
	size_t count, capacity, list_capacity;
};

static struct source *source_of(const struct settings *settings, const struct setting_row *row)
{
	struct source *sources = settings->sources;

	return &sources[row - settings_rows];
}

static void *field_of(struct settings *settings, const struct setting_row *row)
{
	return (char *)settings + row->offset;
}

const struct setting_row *settings_find_row(const char *name)
{
	for (size_t i = 0; i < ROWS; i++)
		if (strcmp(settings_rows[i].name, name) == 0)
			return &settings_rows[i];
	return NULL;
}

const char *settings_option(const char *name, char text[SETTINGS_NAME_SIZE])
{
	snprintf(text, SETTINGS_NAME_SIZE, "--%s", name);
	for (char *at = text; *at != '\0'; at++)
		if (*at == '_')
			*at = '-';
	return text;
}

/* --- places ------------------------------------------------------------------------------------
 */

struct setting_place settings_place_in_file(const char *file, size_t line, const char *name)
{
	struct setting_place place = {.from = FROM_FILE, .line = line};
	size_t length = strlen(file), room = sizeof(place.where) - 32;

	/* of a long path the end says more */
	snprintf(place.where, sizeof(place.where), "%s%s:%zu", length > room ? "..." : "",
	    length > room ? file + length - room : file, line);
	if (name)
		snprintf(place.prefix, sizeof(place.prefix), "%s: ", name);
	return place;
}

struct setting_place settings_place_on_command_line(const char *name)
{
	struct setting_place place = {.from = FROM_COMMAND_LINE};
	char option[SETTINGS_NAME_SIZE];

	snprintf(place.where, sizeof(place.where), "%s", settings_option(name, option));
	return place;
}

struct setting_place settings_place_of(
    const struct settings *settings, const struct setting_row *row, size_t item)
{
	const struct source *source = source_of(settings, row);

	if (source->from == FROM_FILE && item < source->count)
		return settings_place_in_file(
		    settings->config, source->items[item].line, row->name);
	return settings_place_on_command_line(row->name);
}

/* --- setting -----------------------------------------------------------------------------------
 */

static bool set_text(char **field, const char *value, struct mc_error *err)
{
	char *copy = mc_strdup(value, err);

	if (!copy)
		return false;
	free(*field);
	*field = copy;
	return true;
}

static bool add_to_list(
    struct text_list *list, size_t *capacity, const char *value, struct mc_error *err)
{
	return mc_grow((void **)&list->items, capacity, list->count + 1, sizeof(*list->items),
		   "a list of settings", err) &&
	       (list->items[list->count] = mc_strdup(value, err)) != NULL && ++list->count > 0;
}

/* Forgets the values of an earlier source. */
static void clear_row(struct settings *settings, const struct setting_row *row)
{
	struct source *source = source_of(settings, row);

	for (size_t i = 0; i < source->count; i++)
		free(source->items[i].text);
	free(source->items);
	*source = (struct source){.from = source->from};
	if (row->kind == KIND_TEXT) {
		char **text = field_of(settings, row);

		free(*text);
		*text = NULL;
	} else if (row->kind == KIND_LIST) {
		struct text_list *list = field_of(settings, row);

		for (size_t i = 0; i < list->count; i++)
			free(list->items[i]);
		free(list->items);
		*list = (struct text_list){0};
	}
}

bool settings_set(struct settings *settings, const struct setting_row *row,
    const struct setting_place *place, const char *value, struct mc_error *err)
{
	struct source *source = source_of(settings, row);
	void *field = field_of(settings, row);

	if (!settings_check_text(value, place, err))
		return false;
	if (row->kind != KIND_LIST && place->from == FROM_FILE && source->from == FROM_FILE)
		return mc_fail(err, MC_INVALID, place->where,
		    "%scomes twice, the first time in line %zu, and is not a list", place->prefix,
		    source->items[0].line);
	if (row->kind != KIND_LIST || source->from != place->from)
		clear_row(settings, row);
	source->from = place->from;
	if (!mc_grow((void **)&source->items, &source->capacity, source->count + 1,
		sizeof(*source->items), "settings", err) ||
	    (source->items[source->count].text = mc_strdup(value, err)) == NULL)
		return false;
	source->items[source->count++].line = place->line;
	switch (row->kind) {
	case KIND_TEXT:
		return set_text(field, value, err);
	case KIND_LIST:
		return add_to_list(field, &source->list_capacity, value, err);
	case KIND_COUNT:
	case KIND_BYTES:
	case KIND_SECONDS:
		return settings_parse_number(row, value, place, field, err);
	case KIND_FLAG:
		return settings_parse_flag(value, place, field, err);
	}
	return mc_fail(err, MC_INTERNAL, row->name, "is a setting of no kind");
}

static bool set_defaults(struct settings *settings, const char *default_state, struct mc_error *err)
{
	struct setting_place place = {.from = FROM_DEFAULT, .where = "default"};

	for (size_t i = 0; i < ROWS; i++) {
		const char *initial = i == ROW_state ? default_state : settings_rows[i].initial;

		snprintf(place.prefix, sizeof(place.prefix), "%s: ", settings_rows[i].name);
		if (initial && !settings_set(settings, &settings_rows[i], &place, initial, err))
			return false;
	}
	return true;
}

/* --- life --------------------------------------------------------------------------------------
 */

bool settings_read(struct settings *settings, int argc, char **argv, const char *default_state,
    enum settings_action *ret_action, struct mc_error *err)
{
	struct settings_arguments arguments = {.count = argc, .words = argv};

	memset(settings, 0, sizeof(*settings));
	*ret_action = SETTINGS_SERVE;
	settings->sources = mc_alloc(ROWS, sizeof(struct source), "settings", err);
	bool ok = settings->sources && set_defaults(settings, default_state, err) &&
		  settings_read_arguments(settings, &arguments, err);
	if (ok && arguments.action)
		*ret_action = arguments.action->action;
	if (ok && settings_are_needed(arguments.action)) {
		arguments.second = true;
		ok = (!settings->config || settings_read_file(settings, err)) &&
		     settings_read_arguments(settings, &arguments, err) &&
		     settings_check_all(settings, err);
	}
	if (!ok)
		settings_release(settings);
	return ok;
}

void settings_release(struct settings *settings)
{
	for (size_t i = 0; settings->sources && i < ROWS; i++)
		clear_row(settings, &settings_rows[i]);
	free(settings->sources);
	memset(settings, 0, sizeof(*settings));
}

/* --- printing ----------------------------------------------------------------------------------
 */

static bool needs_quotes(const char *value)
{
	size_t length = strlen(value);

	return value[0] == '"' || value[0] == '#' || value[0] == ' ' || value[length - 1] == ' ' ||
	       strstr(value, " #") != NULL;
}

static void print_value(const char *value, FILE *out)
{
	if (!needs_quotes(value)) {
		fputs(value, out);
		return;
	}
	fputc('"', out);
	for (const char *at = value; *at != '\0'; at++) {
		if (*at == '"' || *at == '\\')
			fputc('\\', out);
		fputc(*at, out);
	}
	fputc('"', out);
}

static void print_place(
    const struct settings *settings, const struct source *source, size_t item, FILE *out)
{
	switch (source->from) {
	case FROM_DEFAULT:
		fputs("  # default\n", out);
		break;
	case FROM_FILE:
		fputs("  # ", out);
		/* a path may hold any byte, and the comment ends with the line */
		for (const char *at = settings->config; *at != '\0'; at++)
			fputc((unsigned char)*at < 0x20 || *at == 0x7f ? '?' : *at, out);
		fprintf(out, ":%zu\n", source->items[item].line);
		break;
	case FROM_COMMAND_LINE:
		fputs("  # command line\n", out);
		break;
	}
}

void settings_print(const struct settings *settings, FILE *out)
{
	for (size_t i = 0; i < ROWS; i++) {
		const struct setting_row *row = &settings_rows[i];
		const struct source *source = source_of(settings, row);

		if (source->count == 0)
			fprintf(out, "#%s =  # default, not set\n", row->name);
		for (size_t k = 0; k < source->count; k++) {
			fprintf(out, "%s = ", row->name);
			print_value(source->items[k].text, out);
			print_place(settings, source, k, out);
		}
	}
}

void settings_help(FILE *out)
{
	static const char *const values[] = {[KIND_TEXT] = " TEXT",
	    [KIND_LIST] = " TEXT",
	    [KIND_COUNT] = " N",
	    [KIND_BYTES] = " SIZE",
	    [KIND_SECONDS] = " TIME",
	    [KIND_FLAG] = ""};
	char option[SETTINGS_NAME_SIZE];

	fputs("usage: moecald [--config FILE] [--SETTING VALUE]...\n\n"
	      "examples:\n"
	      "  moecald --state /tmp/state --allow /srv/models --listen 127.0.0.1:0\n"
	      "  moecald --check-config --config /etc/moecald/moecald.conf\n\n"
	      "  --config FILE\n        read settings from FILE, lines of 'name = value'\n",
	    out);
	for (size_t i = 0; i < ACTIONS; i++)
		fprintf(out, "  %s%s\n        %s\n",
		    settings_option(settings_actions[i].name, option), settings_actions[i].words,
		    settings_actions[i].help);
	fputs("\nsettings (SIZE takes K, M, G, T; TIME takes s, m, h, d):\n", out);
	for (size_t i = 0; i < ROWS; i++) {
		const struct setting_row *row = &settings_rows[i];

		fprintf(out, "  %s%s\n        %s", settings_option(row->name, option),
		    values[row->kind], row->help);
		if (row->initial)
			fprintf(out, " (default %s)", row->initial);
		fputc('\n', out);
	}
}

/* --- reload ------------------------------------------------------------------------------------
 */

static bool differs(
    struct settings *settings, struct settings *fresh, const struct setting_row *row)
{
	const struct source *a = source_of(settings, row), *b = source_of(fresh, row);

	switch (row->kind) {
	case KIND_TEXT:
	case KIND_LIST:
		/* a default may depend on the surroundings, but has not been changed by anyone */
		if (a->from == FROM_DEFAULT && b->from == FROM_DEFAULT)
			return false;
		if (a->count != b->count)
			return true;
		for (size_t i = 0; i < a->count; i++)
			if (strcmp(a->items[i].text, b->items[i].text) != 0)
				return true;
		return false;
	case KIND_COUNT:
	case KIND_BYTES:
	case KIND_SECONDS:
		return memcmp(field_of(settings, row), field_of(fresh, row), sizeof(uint64_t)) != 0;
	case KIND_FLAG:
		return memcmp(field_of(settings, row), field_of(fresh, row), sizeof(bool)) != 0;
	}
	return false;
}

static size_t size_of(enum setting_kind kind)
{
	switch (kind) {
	case KIND_TEXT:
		return sizeof(char *);
	case KIND_LIST:
		return sizeof(struct text_list);
	case KIND_COUNT:
	case KIND_BYTES:
	case KIND_SECONDS:
		return sizeof(uint64_t);
	case KIND_FLAG:
		return sizeof(bool);
	}
	return 0;
}

static void swap_bytes(void *a, void *b, size_t size)
{
	unsigned char *x = a, *y = b, kept;

	for (size_t i = 0; i < size; i++) {
		kept = x[i];
		x[i] = y[i];
		y[i] = kept;
	}
}

void settings_reload(struct settings *settings, struct settings *fresh, char restart[256])
{
	size_t length = 0;

	restart[0] = '\0';
	for (size_t i = 0; i < ROWS; i++) {
		const struct setting_row *row = &settings_rows[i];

		if (row->reloadable) {
			/* what was there before goes with fresh */
			swap_bytes(
			    field_of(settings, row), field_of(fresh, row), size_of(row->kind));
			swap_bytes(
			    source_of(settings, row), source_of(fresh, row), sizeof(struct source));
		} else if (differs(settings, fresh, row) && length < 256) {
			length += (size_t)snprintf(restart + length, 256 - length, "%s%s",
			    length > 0 ? ", " : "", row->name);
		}
	}
}
