/*
 * store_parts.h - what the files of the store share
 */
#ifndef MOECALD_STORE_PARTS_H
#define MOECALD_STORE_PARTS_H

#include <pthread.h>
#include <sqlite3.h>
#include <stdatomic.h>

#include "store.h"

/* Every statement that is ever run. Prepared at its first use, finalized at close. */
#define STORE_STATEMENTS 48

struct store {
	pthread_mutex_t lock; /* the connection, the statements, everything below */
	pthread_cond_t changed;
	sqlite3 *db;
	char *path;
	struct metrics *metrics;
	bool awake;
	/* read without the lock */
	atomic_bool failed;
	atomic_llong refused_ms; /* monotonic: when the file last did not take something; 0: it does */
	int lock_fd; /* held while the store is open: one process a folder */
	uint64_t generation;
	struct {
		const char *sql; /* static: found by its address */
		sqlite3_stmt *statement;
	} prepared[STORE_STATEMENTS];
	int64_t began; /* monotonic ms * 1000: of the transaction in work */
	bool in_transaction;
};

/* begin takes the lock; end gives it back after COMMIT, or ROLLBACK when !ok. A commit wakes those who
 * wait. Returns ok, or false when the commit fails. */
bool store_begin(struct store *store, struct mc_error *err) MC_CHECKED;
bool store_end(struct store *store, bool ok, struct mc_error *err) MC_CHECKED;
/* For reading: the lock without a transaction; a statement is its own one. */
bool store_lock(struct store *store, struct mc_error *err) MC_CHECKED;
void store_unlock(struct store *store);

/* The statement for a static text, reset and without bindings; NULL with err. */
sqlite3_stmt *store_statement(struct store *store, const char *sql, struct mc_error *err) MC_CHECKED;
/* Runs to the end; ret_changes may be NULL. The statement is reset. */
bool store_run(struct store *store, sqlite3_stmt *statement, int *ret_changes, struct mc_error *err) MC_CHECKED;
/* One step: *ret_row false at the end (then it is reset). */
bool store_step(struct store *store, sqlite3_stmt *statement, bool *ret_row, struct mc_error *err) MC_CHECKED;
/* Always false; a disk or file error makes the store failed. */
bool store_fail(struct store *store, struct mc_error *err);

void bind_text(sqlite3_stmt *statement, int at, const char *text); /* NULL -> NULL */
bool bind_json(sqlite3_stmt *statement, int at, const struct mc_json *json, struct mc_error *err) MC_CHECKED;
/* A copy of a text column; *ret NULL for NULL. */
bool column_copy(sqlite3_stmt *statement, int at, char **ret, struct mc_error *err) MC_CHECKED;

/* --- jobs (store_jobs.c) ------------------------------------------------------------------------ */

/* What store_job_read_one reads. */
#define JOB_COLUMNS                                                                                \
	"seq, id, state, principal, reason, spec, request, plan, progress, priority, deadline_ms," \
	" keep_ms, memory_bytes, disk_bytes, attempt, crashes, version, created_ms, started_ms,"   \
	" finished_ms, expires_ms, not_before_ms"
/* The one row of a statement (NULL: false); NOT_FOUND when there is none. */
bool store_job_read_one(struct store *store, sqlite3_stmt *s, const char *where, struct job_row *ret,
    struct mc_error *err) MC_CHECKED;
/* A move with its event and what goes with it; within a transaction. */
bool store_job_move_row(struct store *store, const struct job_row *row, const struct job_change *change,
    struct mc_error *err) MC_CHECKED;

/* --- within a transaction ----------------------------------------------------------------------- */

bool store_idempotency_look(struct store *store, const struct idempotency *idempotency,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err) MC_CHECKED;
bool store_idempotency_keep(struct store *store, const struct idempotency *idempotency, const char *id,
    struct mc_error *err) MC_CHECKED;
bool store_idempotency_forget(struct store *store, const char *route, const char *id, struct mc_error *err) MC_CHECKED;
bool store_event_put(struct store *store, int64_t job_seq, int64_t now, const char *type,
    const struct mc_json *data, struct mc_error *err) MC_CHECKED;

#endif
