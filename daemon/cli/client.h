/*
 * client.h - talking to the service
 *
 * One client is one service and one connection that is kept. Nothing here follows a redirect, and a
 * token never comes from an argument, where other users of the machine could read it.
 */
#ifndef MOECAL_CLIENT_H
#define MOECAL_CLIENT_H

#include <sys/types.h>

#include "cli.h"

#define CLIENT_DEFAULT_URL "http://127.0.0.1:8460"
#define CLIENT_KEY_SIZE 65 /* an idempotency key has at most 64 characters */

/* --- arguments -------------------------------------------------------------------------------- */

/* What every command that talks to the service takes; starts as {0}. */
struct client_options {
	const char *url;   /* NULL: MOECAL_URL, else the default */
	int64_t timeout_s; /* of silence; 0: what each request thinks right */
	bool json;
};
/* Rows of a table of options; o is a struct client_options *. */
#define CLIENT_OPTION_ROWS(o)                                                                      \
	{"--url", OPTION_TEXT, &(o)->url, 0, 0},                                                   \
	{                                                                                          \
		"--timeout", OPTION_INTEGER, &(o)->timeout_s, 1, 86400                             \
	}
#define CLIENT_JSON_ROW(o)                                                                         \
	{                                                                                          \
		"--json", OPTION_FLAG, &(o)->json, 0, 0                                            \
	}

/* --- life ------------------------------------------------------------------------------------- */

struct client;

/*
 * http://HOST:PORT, https://..., with a path when it lies behind a proxy, or unix:PATH. The token is
 * that of MOECAL_TOKEN, else of the file MOECAL_TOKEN_FILE, else there is none. From here on SIGINT
 * and SIGTERM end transfers; session_signal tells which came. Does not connect yet.
 * Errors: INVALID (address, token), NOT_FOUND (token file). Owned: client_close.
 */
struct client *client_open(const struct client_options *options, struct mc_error *err) MC_CHECKED;
void client_close(struct client *client); /* NULL is fine */
/* As the user named it; borrowed. */
const char *client_url(const struct client *client);
/* The variable that the token came by; NULL: there is none. */
const char *client_token_from(const struct client *client);

/* --- one request ------------------------------------------------------------------------------ */

#define CLIENT_SILENCE_S 60       /* the service answers at once, or says that it lives */
#define CLIENT_SILENCE_LONG_S 900 /* it reads a whole checkpoint before it answers */

struct client_request {
	const char *method;         /* NULL: GET */
	const char *path;           /* "/v1/jobs?limit=3" */
	const struct mc_json *json; /* the body, or NULL */
	const char *file_type;      /* media type of the body that is all of file_fd; NULL: no file */
	int file_fd;
	uint64_t file_bytes;
	const char *key;       /* Idempotency-Key, or NULL */
	const char *accept;    /* NULL: JSON */
	const char *header[2]; /* "Range: bytes=5-"; NULL: none */
	int64_t silence_s;     /* how long the service may say nothing; 0: CLIENT_SILENCE_S */
	/* What is answered with 200 or 206 goes here, piece by piece; NULL: it is JSON for the answer.
	 * False with an error ends the request. */
	bool (*sink)(
	    void *ctx, int status, const char *bytes, size_t length, struct mc_error *err);
	void (*moved)(void *ctx, uint64_t bytes); /* bytes of the body sent or got so far; or NULL */
	void *ctx;
};

enum client_outcome {
	CLIENT_DONE,        /* 2xx, and all of it */
	CLIENT_REFUSED,     /* any other status */
	CLIENT_UNREACHABLE, /* no answer, half of one, or not one of this service */
	CLIENT_STOPPED,     /* session_signal */
	CLIENT_FAILED       /* on this side: memory, disk, the sink */
};

struct client_answer {
	enum client_outcome outcome;
	int status;            /* 0: none came */
	struct mc_json *json;  /* NULL when there is none; owned */
	int64_t retry_after_s; /* 0: not said */
	bool replayed;         /* of an idempotency key: nothing new was made */
	struct mc_error err;   /* UNREACHABLE and FAILED: why */
};
void client_answer_release(struct client_answer *answer);

/* `answer` need not be empty before; release it after. */
enum client_outcome client_send(
    struct client *client, const struct client_request *request, struct client_answer *answer);

/* --- calls: requests as commands make them ------------------------------------------------------ */

/* As client_send; while the service is too busy (429, 503) waits as long as it asks for, a few times,
 * and says so. */
enum client_outcome client_call(
    struct client *client, const struct client_request *request, struct client_answer *answer);
/* Whether the service may take the same request later. */
bool client_is_busy(const struct client_answer *answer);
/* Why it did not work, to stderr (with json the service's document, or ours, to stdout); the exit
 * code that goes with it. */
int client_report(
    const struct client *client, const struct client_answer *answer, bool json);
/* A success that is not what was asked for: told of as of a service that cannot be reached. */
#define CLIENT_NOT_MOECALD "something answers there, but not as moecald does"
int client_wrong_answer(const struct client *client, bool json);
/* client_call; not done is reported, the answer released, and its exit code returned. Done: EXIT_DONE
 * and an answer with JSON, unless the status is 204. */
int client_do(struct client *client, const struct client_request *request, bool json,
    struct client_answer *answer);
/* "?name=value" or "&name=value" to an address, escaped; nothing when value is NULL. */
bool query_add(struct mc_buf *path, const char *name, const char *value, struct mc_error *err)
    MC_CHECKED;
/* The first `limit` entries (0: all) of a list, page after page: {NAME: [...], "next_cursor"} in
 * *ret, owned. Returns an exit code; messages are printed. */
int client_list(struct client *client, const char *path, const char *name, int64_t limit, bool json,
    struct mc_json **ret);

/* "ID: deleted", or the same as a document. */
void client_print_removed(const char *id, bool json);
/* Behind a list that was cut by its limit. */
void client_tell_more(const struct mc_json *document);

/* Waits; false when a signal came. */
bool client_pause(int64_t seconds);
int64_t client_clock_s(void); /* monotonic */
/* [a-z0-9][a-z0-9._-]{0,63}, so that it can stand in an address */
bool client_id_is_valid(const char *id);
/* Exactly one operand that is an id; a usage error otherwise. `thing`: "job" */
int client_read_id(const struct option_row *table, int argc, char **argv, const char *thing,
    const char **ret_id);
/* 32 random hex digits. */
bool client_make_key(char ret_key[CLIENT_KEY_SIZE], struct mc_error *err) MC_CHECKED;

/* --- shared between commands -------------------------------------------------------------------- */

#define WATCH_RETRY_FOR_S 600

/*
 * Follows a job to its end and tells of it; json: each event is a line on stdout. After the
 * connection broke it is made again, until the service was not heard of for retry_for_s seconds.
 * known: the service was heard of before; otherwise one that cannot be reached at first is not
 * waited for. Returns an exit code; messages are printed.
 */
int watch_job(struct client *client, const char *id, bool json, int64_t retry_for_s, bool known);

/* A file of data to the service, as a dataset. id, text_column, key may be NULL. *ret: the dataset,
 * owned. Returns an exit code; messages are printed. */
struct upload {
	const char *path, *id, *text_column, *key;
};
int upload_dataset(
    struct client *client, const struct upload *upload, bool json, struct mc_json **ret);
/* The exit code of a job that is in a finished state. */
int job_exit_code(const char *state, const char *reason_code);
bool job_state_is_finished(const char *state);

/* --- server-sent events ------------------------------------------------------------------------- */

/* Cuts a stream into events; fed with whatever pieces arrive. */
struct event_stream {
	struct mc_buf line, data;
	char id[32], type[32];  /* of the event in work */
	char last_id[32];       /* of the last whole one: to go on after it */
	bool after_return;      /* the line ended with CR: a LF belongs to it */
	int64_t retry_ms;       /* as asked for; 0: not */
	bool (*event)(void *ctx, const char *type, const char *data, size_t length,
	    struct mc_error *err);
	void *ctx;
};
void event_stream_init(struct event_stream *stream);
void event_stream_release(struct event_stream *stream);
/* Before a new connection: what was half read is dropped, last_id stays. */
void event_stream_restart(struct event_stream *stream);
bool event_stream_add(struct event_stream *stream, const char *bytes, size_t length,
    struct mc_error *err) MC_CHECKED;

#endif
