/*
 * settings_parts.h - what the files of the settings share: the table and where values come from
 */
#ifndef MOECALD_SETTINGS_PARTS_H
#define MOECALD_SETTINGS_PARTS_H

#include "settings.h"

#define SETTINGS_NAME_SIZE 64

enum setting_kind { KIND_TEXT, KIND_LIST, KIND_COUNT, KIND_BYTES, KIND_SECONDS, KIND_FLAG };

struct setting_row {
	const char *name;
	enum setting_kind kind;
	const char *initial;
	uint64_t least, most;
	bool reloadable;
	const char *help;
	size_t offset; /* of the field in struct settings */
};

enum {
#define X(field, kind, initial, least, most, reloadable, help) ROW_##field,
	SETTINGS(X)
#undef X
	    ROWS
};

extern const struct setting_row settings_rows[ROWS];

struct setting_action {
	const char *name;
	enum settings_action action;
	const char *words, *help;
};

#define ACTIONS 5
extern const struct setting_action settings_actions[ACTIONS];

const struct setting_row *settings_find_row(const char *name); /* NULL: there is none */
/* "--queued-jobs" for "queued_jobs"; returns text. */
const char *settings_option(const char *name, char text[SETTINGS_NAME_SIZE]);

/* --- where values come from --------------------------------------------------------------------
 */

enum setting_from { FROM_DEFAULT, FROM_FILE, FROM_COMMAND_LINE };

/* Where a value stands, for errors: "FILE:LINE" and the prefix "name: ", or the option alone. */
struct setting_place {
	enum setting_from from;
	size_t line;
	char where[160];
	char prefix[SETTINGS_NAME_SIZE];
};

/* name: of the setting, or NULL while it is not known. */
struct setting_place settings_place_in_file(const char *file, size_t line, const char *name);
struct setting_place settings_place_on_command_line(const char *name);
/* Of an item of a row as it was set. */
struct setting_place settings_place_of(
    const struct settings *settings, const struct setting_row *row, size_t item);

/* Takes over one value of one source; the first value of a later source replaces all earlier ones.
 */
bool settings_set(struct settings *settings, const struct setting_row *row,
    const struct setting_place *place, const char *value, struct mc_error *err) MC_CHECKED;

/* --- settings_values.c -------------------------------------------------------------------------
 */

/* A value of a COUNT, BYTES or SECONDS row within its bounds. */
bool settings_parse_number(const struct setting_row *row, const char *value,
    const struct setting_place *place, uint64_t *ret_number, struct mc_error *err) MC_CHECKED;
bool settings_parse_flag(const char *value, const struct setting_place *place, bool *ret_flag,
    struct mc_error *err) MC_CHECKED;
/* Not empty, no control characters: so that it is one line of --print-config and of the log. */
bool settings_check_text(
    const char *value, const struct setting_place *place, struct mc_error *err) MC_CHECKED;
/* What needs more than one value to be judged, and nothing opened. */
bool settings_check_all(const struct settings *settings, struct mc_error *err) MC_CHECKED;

/* --- settings_sources.c ------------------------------------------------------------------------
 */

/* The command line is walked twice: for the config file and the action, then for the values, which
 * must come after those of the file. */
struct settings_arguments {
	int count, next;
	char **words;
	bool second;
	const struct setting_action *action;
};

bool settings_read_file(struct settings *settings, struct mc_error *err) MC_CHECKED;
bool settings_read_arguments(struct settings *settings, struct settings_arguments *arguments,
    struct mc_error *err) MC_CHECKED;
/* Help, the version and a new token have nothing to do with settings that may be broken. */
bool settings_are_needed(const struct setting_action *action);

#endif
