/*
 * scenario.h - what the parts of http_cases share
 */
#ifndef HTTP_CASES_SCENARIO_H
#define HTTP_CASES_SCENARIO_H

#include <sys/types.h>

#include "moecal/buf.h"
#include "moecal/json.h"

#define MAX_VARIABLES 32
#define MAX_EXPECTED 32
#define MAX_OPTIONS 32
#define LINE_SIZE 8192

struct variable {
	char name[32], value[4096];
};

struct scenario {
	const char *file;
	struct variable variables[MAX_VARIABLES];
	size_t variables_count;
	char state[64], work[64]; /* folders: the daemon's, and one that it may read */
	pid_t daemon;
	int port, connection;
	/* the exchange in work */
	char title[160];
	size_t line;
	bool complained;
	struct mc_buf sent;
	char expected[MAX_EXPECTED][LINE_SIZE];
	size_t expected_count;
	bool answered;
	unsigned status;
	struct mc_buf head, body;
	unsigned passed, failed;
};

/* Ends the program with 2: the scenario itself cannot be run. */
_Noreturn void die(const char *what);
/* The exchange has failed; says where and why. */
void complain(struct scenario *s, const char *fmt, ...) MC_PRINTF(2, 3);
void add(struct mc_buf *buf, const void *bytes, size_t length);
void set_variable(struct scenario *s, const char *name, const char *value);
/* json on one line, cut to size; "nothing" for NULL */
void show(const struct mc_json *json, char *text, size_t size);

/* --- daemon.c ----------------------------------------------------------------------------------
 */

/* A moecald of its own: sets STATE, WORK, DATA, PORT. options: NULL-terminated. */
void start_daemon(struct scenario *s, const char *moecald, const char *moecal, char **options);
/* SIGTERM; it must end with 0. */
void stop_daemon(struct scenario *s);

/* --- connection.c ------------------------------------------------------------------------------
 */

/* A new connection unless one is open. */
void open_connection(struct scenario *s);
/* Whether the other side closes within five seconds. */
bool is_closed(int fd);
/* One answer to head, body, status; answered false when there is none. */
void read_answer(struct scenario *s);
/* Value of a header of the answer, valid until the next call; NULL when absent. */
const char *header(struct scenario *s, const char *name);

/* --- expectation.c -----------------------------------------------------------------------------
 */

/* Holds the answer against the expected lines. */
void compare(struct scenario *s);

#endif
