/*
 * settings.h - the daemon's settings: one table for command line, config file and documentation
 *
 * Each row has the same name as an option (--queued-jobs N), as a line of the config file
 * (queued_jobs = N) and in `moecald --print-config`, which also says where the value came from.
 * Command line wins over file, file over default. Lists add up within one source.
 */
#ifndef MOECALD_SETTINGS_H
#define MOECALD_SETTINGS_H

#include <stdint.h>
#include <stdio.h>

#include "moecal/error.h"

struct text_list {
	size_t count;
	char **items; /* owned */
};

/*
 * A config file has lines "name = value". '#' begins a comment at the start of a line or after white
 * space. A value may stand in double quotes, where \" and \\ stand for " and \. A row that is no
 * list stands there once; on the command line the last one counts.
 */

/* X(field, kind, default, least, most, reloadable, help). Kinds: TEXT (NULL: not set), LIST, COUNT,
 * BYTES (accepts K M G T, powers of 1024), SECONDS (accepts s m h d), FLAG. */
#define SETTINGS(X)                                                                                \
	X(listen, LIST, "127.0.0.1:8460", 0, 0, false, "HOST:PORT (port 0 picks one), unix:PATH or systemd; may be repeated") \
	X(state, TEXT, NULL, 0, 0, false, "folder of the database, uploads and job folders")           \
	X(allow, LIST, NULL, 0, 0, false, "folder that models and datasets may lie in; may be repeated") \
	X(token_file, TEXT, NULL, 0, 0, true, "lines of NAME SCOPE SHA256; without it nobody needs a token") \
	X(host, LIST, NULL, 0, 0, true, "further host names that requests may name; may be repeated") \
	X(program, TEXT, NULL, 0, 0, false, "the moecal that runs jobs; the one beside moecald")       \
	X(jobs, COUNT, "1", 1, 64, true, "jobs that run at once, if their memory fits")                \
	X(threads, COUNT, "0", 0, 1024, true, "worker threads of all running jobs together; 0: all")   \
	X(memory_bytes, BYTES, "0", 0, INT64_MAX, true, "memory of all running jobs together; 0: from the machine") \
	X(connections, COUNT, "64", 4, 4096, false, "open connections")                               \
	X(watchers, COUNT, "32", 1, 4096, false, "long polls and event streams at once")                \
	X(body_bytes, BYTES, "256K", 1024, 64 << 20, false, "largest JSON body")                      \
	X(upload_bytes, BYTES, "4G", 1024, INT64_MAX, true, "largest uploaded dataset")                \
	X(uploads_bytes, BYTES, "64G", 1024, INT64_MAX, true, "all uploaded datasets together")        \
	X(models, COUNT, "1000", 1, 1000000, true, "registered models")                               \
	X(datasets, COUNT, "1000", 1, 1000000, true, "registered datasets")                           \
	X(queued_jobs, COUNT, "1000", 1, 1000000, true, "jobs that wait")                             \
	X(queued_jobs_per_token, COUNT, "100", 1, 1000000, true, "jobs of one token that wait")       \
	X(request_seconds, SECONDS, "30", 1, 3600, true, "from the first byte of a request to its last") \
	X(upload_seconds, SECONDS, "1h", 1, 86400, true, "the same for an upload")                    \
	X(idle_seconds, SECONDS, "10", 1, 3600, false, "a connection without traffic")                \
	X(wait_seconds, SECONDS, "60", 1, 3600, true, "longest ?wait=")                               \
	X(inspectors, COUNT, "2", 1, 64, false, "plans and registrations made at once")                \
	X(plan_seconds, SECONDS, "60", 1, 3600, true, "longest time to plan a spec")                   \
	X(register_seconds, SECONDS, "10m", 1, 86400, true, "longest time to read and hash a model or dataset") \
	X(deadline_seconds, SECONDS, "0", 0, 315360000, true, "deadline of a job that names none; 0: none") \
	X(keep_seconds, SECONDS, "30d", 1, 315360000, true, "how long a finished job is kept when it does not say") \
	X(crashes, COUNT, "3", 1, 100, true, "a job that crashed so often fails")                      \
	X(free_percent, COUNT, "5", 0, 99, true, "share of the state's disk that must stay free")      \
	X(stop_seconds, SECONDS, "60", 1, 3600, false, "time for running jobs to save at a stop")      \
	X(log_level, TEXT, "info", 0, 0, true, "debug, info, warning or error")                        \
	X(log_requests, FLAG, "false", 0, 0, true, "a line for every request")

struct settings {
#define SETTING_TEXT char *
#define SETTING_LIST struct text_list
#define SETTING_COUNT uint64_t
#define SETTING_BYTES uint64_t
#define SETTING_SECONDS uint64_t
#define SETTING_FLAG bool
#define X(field, kind, initial, least, most, reloadable, help) SETTING_##kind field;
	SETTINGS(X)
#undef X
	const char *config; /* path of the config file, or NULL; borrowed from argv */
	const char *token_name, *token_scope; /* of --make-token, else NULL; borrowed from argv */
	void *sources;      /* private: where each row came from */
};

enum settings_action { SETTINGS_SERVE, SETTINGS_PRINT, SETTINGS_CHECK, SETTINGS_HELP, SETTINGS_VERSION, SETTINGS_MAKE_TOKEN };

/*
 * Defaults, then --config FILE, then the rest of the command line. ret_action says which of
 * --print-config, --check-config, --help, --version, --make-token was asked for. Checks what can be
 * checked without opening anything: listeners are well-formed, a listener that is neither loopback
 * nor unix nor systemd needs a token_file, log_level is known. `state` not given: $STATE_DIRECTORY
 * if set, else /var/lib/moecald for root, else ~/.local/state/moecald (passed in by the caller as
 * default_state). INVALID names "FILE:LINE" or the option, and the nearest known name.
 */
bool settings_read(struct settings *settings, int argc, char **argv, const char *default_state,
    enum settings_action *ret_action, struct mc_error *err) MC_CHECKED;
void settings_release(struct settings *settings);
/* "name = value  # default | FILE:LINE | command line", one row a line; lists one line an item. Can be
 * read again as a config file: values that hold " #" or the like are quoted, rows that are not set
 * are comments. */
void settings_print(const struct settings *settings, FILE *out);
void settings_help(FILE *out);
/*
 * Takes the reloadable rows of `fresh` over; all other rows stay. Names of rows that differ but need
 * a restart are written to restart (comma separated, "" when none). The caller keeps others from
 * reading meanwhile.
 */
void settings_reload(struct settings *settings, struct settings *fresh, char restart[256]);

#endif
