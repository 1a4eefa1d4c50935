/*
 * cli.h - what the commands of moecal share
 */
#ifndef MOECAL_CLI_H
#define MOECAL_CLI_H

#include <stdio.h>

#include "moecal/calibrate.h"
#include "moecal/env.h"
#include "moecal/json.h"
#include "moecal/problems.h"

/* Exit codes: an interface that schedulers rely on. */
enum {
	EXIT_DONE = 0,
	EXIT_JOB_FAILED = 1,
	EXIT_USAGE = 2,
	EXIT_UNREACHABLE = 3, /* the service; or it takes nothing now */
	EXIT_VERDICT = 4,
	EXIT_REQUEUE = 75, /* stopped by SIGTERM; the work is saved, or goes on in the service */
	EXIT_INTERRUPTED = 130
};

struct command {
	const char *name;
	const char *arguments;             /* of the usage line */
	const char *summary;               /* one line */
	const char *help;                  /* options and examples */
	int (*run)(int argc, char **argv); /* argv[0] is the command's name */
};
const struct command *command_find(const char *name);
/* "usage: ..." and the help text to stdout. */
void command_help(const struct command *command);
/* A usage error to stderr; returns EXIT_USAGE. */
int usage_error(const char *command, const char *fmt, ...) MC_PRINTF(2, 3);

/* Text of others: control characters become '?', so that it cannot drive a terminal. */
void print_plain(FILE *out, const char *text);
/* The same to stdout, padded to `width` characters. */
void print_cell(const char *text, int width);
int text_width(const char *text); /* in characters */
/* The longest text that `key` has in a list of objects, at least `least`. */
int column_width(const struct mc_json *list, const char *key, int least);

/* --- failing ---------------------------------------------------------------------------------- */

/* "moecal: where: text" to stderr, or a problem object to stdout with json; returns the exit code
 * that goes with the error. `begun`: the job was already computing. */
int report_error(const struct mc_error *err, bool json, bool begun);
/* The same for what has no mc_code: {"event": "failed", "code", "where", "text", "exit"}. */
void report_failure(
    const char *code, const char *where, const char *text, int exit_code, bool json);
/* All problems, one a line with its pointer; returns EXIT_USAGE. */
int report_problems(const struct mc_problems *problems, bool json);

/* --- a session: pool, memory, signals ------------------------------------------------------------
 */

struct session {
	struct mc_arena arena;
	struct mc_env env;
	bool quiet;
};
/* threads 0: all; memory_bytes 0: from the machine. Installs SIGINT, SIGTERM handlers that cancel.
 */
bool session_open(struct session *session, uint64_t threads, uint64_t memory_bytes,
    struct mc_error *err) MC_CHECKED;
void session_close(struct session *session);
/* 0, SIGINT or SIGTERM */
int session_signal(void);
/* Only the handlers: session_signal tells what came. A second signal ends the program. */
void session_catch_signals(void);

/* --- reading arguments --------------------------------------------------------------------------
 */

/* --allow DIR, --model-alias NAME=PATH, --dataset-alias NAME=PATH, --parent PID: what the service
 * gives its children. With roots, no path outside of them is opened. */
struct confinement {
	struct mc_roots *roots; /* owned; NULL: any path may be opened */
	double gflops;          /* --gflops N: rate of an earlier plan; 0: measure */
};
bool confinement_is_option(const char *option);
bool confinement_set(struct confinement *confinement, const char *option, const char *value,
    struct mc_error *err) MC_CHECKED;
void confinement_release(struct confinement *confinement);

/* One option of a command: a row of a table that ends with a name NULL. */
enum option_kind {
	OPTION_FLAG,   /* into a bool */
	OPTION_TEXT,   /* into a const char * */
	OPTION_TEXTS,  /* into a struct option_texts: may be repeated */
	OPTION_INTEGER /* into an int64_t from least to most */
};
struct option_row {
	const char *name; /* "--wait" */
	enum option_kind kind;
	void *into;
	int64_t least, most;
};
#define OPTION_MOST_TEXTS 32
struct option_texts {
	const char *items[OPTION_MOST_TEXTS];
	size_t count;
};
/* Takes argv[*i], with its value, when it is an option of the table; *i is left at the last argument
 * used, *ret_taken tells. Returns an exit code; messages are printed. */
int option_take(const struct option_row *table, int argc, char **argv, int *i, bool *ret_taken);
/* Options of the table and at most `most` operands. */
int options_read(const struct option_row *table, int argc, char **argv, const char **operands,
    size_t most, size_t *ret_count);

/* Options common to commands that take a spec; the result is a spec as JSON. */
struct mc_source;
struct spec_arguments {
	struct mc_json *spec; /* owned */
	const char *output;
	const char *source; /* a finished job's folder, of commands that take one */
	bool derives;       /* the first operand is that folder */
	bool plan_only;     /* --plan, of such commands */
	struct confinement confinement;
	bool json, help;
};
/* Reads SPEC|-, --model, --dataset, --recipe, any --key VALUE of the spec, -o, --json. Returns an
 * exit code, EXIT_DONE when all is well; messages are printed. */
int spec_arguments_read(struct spec_arguments *arguments, int argc, char **argv);
/* DIR [SPEC|-] and the same options, besides --plan: of what is derived from DIR. */
int spec_arguments_read_derived(struct spec_arguments *arguments, int argc, char **argv);
/* With options of the command's own instead of -o and those of a confinement. */
int spec_arguments_read_with(struct spec_arguments *arguments, const struct option_row *own,
    int argc, char **argv);
void spec_arguments_release(struct spec_arguments *arguments);
/* Runs the job, or shows its plan; source NULL: over its own data. Returns an exit code. */
int spec_run(struct mc_spec *spec, const struct spec_arguments *arguments, struct mc_source *source);
int spec_show_plan(
    struct mc_spec *spec, const struct spec_arguments *arguments, struct mc_source *source);

/* --- output -------------------------------------------------------------------------------------
 */

/* "1.5 GB", "12.3 s", "1:02:03"; into text, returns text. */
const char *bytes_text(uint64_t bytes, char text[32]);
const char *seconds_text(double seconds, char text[32]);
const char *count_text(double count, char text[32]); /* "1.5 T" */
/* Members of documents that others wrote: what is absent or of another type is "", 0, 0.0, false. */
const char *member_text(const struct mc_json *object, const char *key);
int64_t member_integer(const struct mc_json *object, const char *key);
double member_number(const struct mc_json *object, const char *key);
bool member_bool(const struct mc_json *object, const char *key);
/* value on one line to stdout, at once */
void print_json_line(const struct mc_json *value);
/* Whether all that was printed went out, or nobody reads it any more. */
bool output_is_written(void);
/* value, pretty, to stdout */
bool print_json(const struct mc_json *value, struct mc_error *err) MC_CHECKED;
/* DIR/name as JSON; NULL with err. Owned. */
struct mc_json *read_json_file(
    const char *folder, const char *name, struct mc_error *err) MC_CHECKED;
/* The table of a coverage document. */
void print_coverage(const struct mc_json *coverage, bool every_layer);
/* The table of a verdict document. */
void print_verdict(const struct mc_json *verdict);

/* --- progress -----------------------------------------------------------------------------------
 */

/* A bar on a terminal, else a line a layer; to standard error. */
struct progress_display {
	bool terminal;
	char coverage[96];   /* of the layer done last */
	char phase_said[16]; /* lines: what was told last */
	size_t layers_said;
	int64_t drawn_ms; /* bytes: when they were told last */
};
void progress_show(struct progress_display *display, const struct mc_progress *progress);
/* Removes the bar, so that a line can be printed. */
void progress_clear(const struct progress_display *display);
/* "NAME 34% 1.2 GB of 3.4 GB" on the line of the bar. */
void progress_bytes(
    struct progress_display *display, const char *name, uint64_t done, uint64_t total);

/* --- commands ------------------------------------------------------------------------------------
 */

int command_run(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_derive(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_verify(int argc, char **argv);
int command_coverage(int argc, char **argv);
int command_diff(int argc, char **argv);
int command_quantization(int argc, char **argv);
int command_evaluate(int argc, char **argv);
int command_tokenize(int argc, char **argv);
int command_submit(int argc, char **argv);
int command_list(int argc, char **argv);
int command_get(int argc, char **argv);
int command_watch(int argc, char **argv);
int command_cancel(int argc, char **argv);
int command_rm(int argc, char **argv);
int command_fetch(int argc, char **argv);
int command_models(int argc, char **argv);
int command_datasets(int argc, char **argv);
int command_version(int argc, char **argv);

#endif
