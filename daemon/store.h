/*
 * store.h - the database: models, datasets, jobs, events, artifacts
 *
 * One SQLite connection behind one mutex; every call is one short transaction, synced before it
 * returns. A change of a job, its event and its idempotency row are one transaction, and every
 * change wakes those who wait. After a failing disk or a corrupt file the store is failed: every
 * later call says so. Times are milliseconds UTC. Strings in rows are owned by the row.
 */
#ifndef MOECALD_STORE_H
#define MOECALD_STORE_H

#include <stdint.h>

#include "ids.h"
#include "job_state.h"

#include "moecal/buf.h"
#include "moecal/json.h"

struct store;
struct metrics;

/* Opens or creates FOLDER/moecald.db, checks it, migrates (a dated backup first). Errors: CORRUPT,
 * UNSUPPORTED (made by a newer program, or not ours), IO, CONFLICT (another process has it). */
struct store *store_open(const char *folder, struct metrics *metrics, struct mc_error *err) MC_CHECKED;
void store_close(struct store *store); /* NULL is fine */
bool store_is_failed(struct store *store);
/* A consistent copy at `path`, which must not exist. */
bool store_backup(struct store *store, const char *path, struct mc_error *err) MC_CHECKED;

/* --- waiting ----------------------------------------------------------------------------------- */

/* Counts every commit. Read it, look at rows, then wait for it to become another one. */
uint64_t store_generation(struct store *store);
/* Until the generation is another one, store_wake was called, or monotonic_ms() passes `until`. */
void store_wait(struct store *store, uint64_t generation, int64_t until);
/* Lets all who wait look again, as a commit does. */
void store_poke(struct store *store);
/* Ends all waits now and from now on; for stopping. */
void store_wake_all(struct store *store);

/* --- jobs -------------------------------------------------------------------------------------- */

struct job_row {
	int64_t seq;
	char id[ID_SIZE];
	enum job_state state;
	char *principal;
	char *reason;   /* {"code", "detail"} or NULL */
	char *spec;     /* as answered: every default filled in */
	char *request;  /* what the child gets: {"spec", "aliases"} */
	char *plan;
	char *progress; /* or NULL */
	int64_t priority, deadline_ms /* 0: none; from the first start */, keep_ms;
	int64_t memory_bytes, disk_bytes; /* of the plan */
	int64_t attempt, crashes, version;
	int64_t created_ms, started_ms, finished_ms, expires_ms, not_before_ms; /* 0: not yet */
};
void job_row_release(struct job_row *row);

struct idempotency {
	const char *principal, *key; /* key NULL: none */
	const char *route;           /* "POST /v1/jobs" */
	const char *fingerprint;     /* sha256 of what was asked */
};
struct store_limits {
	uint64_t queued, queued_of_principal; /* jobs */
	uint64_t rows;                        /* models or datasets */
	uint64_t bytes;                       /* all uploads */
};
enum store_added {
	ADDED,
	ADDED_BEFORE,     /* the same key and fingerprint: ret_id names what was made then */
	ADD_KEY_REUSED,   /* the key stands for another request */
	ADD_NAME_TAKEN,
	ADD_FULL,         /* the limit of all */
	ADD_QUOTA         /* the limit of the principal */
};

struct job_input {
	const char *kind, *id; /* "model" or "dataset", a registered one */
};

/* A queued job: id, principal, spec, request, plan, priority, deadline_ms, keep_ms, memory_bytes,
 * disk_bytes, created_ms of `row` are used. INPUT rows keep its inputs from being deleted while it
 * is not finished. Writes the event "state". */
bool store_job_add(struct store *store, const struct job_row *row, const struct job_input *inputs,
    size_t inputs_count, const struct idempotency *idempotency, const struct store_limits *limits,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err) MC_CHECKED;
/* What an earlier request with this key made, without making anything: ADDED when it is new. */
bool store_idempotency_find(struct store *store, const struct idempotency *idempotency,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err) MC_CHECKED;
/* NOT_FOUND when absent. */
bool store_job_get(struct store *store, const char *id, struct job_row *ret, struct mc_error *err) MC_CHECKED;

struct job_filter {
	unsigned states;   /* bits 1 << state; 0: all */
	const char *model; /* spec's model, or NULL */
	int64_t before;    /* seq: only older ones; 0: from the newest */
	uint64_t limit;
};
/* Newest first; calls fn for each row (which is released after), then *ret_next is the seq to go on
 * `before`, 0 at the end. */
bool store_job_list(struct store *store, const struct job_filter *filter,
    bool (*fn)(void *ctx, const struct job_row *row, struct mc_error *err), void *ctx,
    int64_t *ret_next, struct mc_error *err) MC_CHECKED;
/* The job to start next: highest priority, then oldest, whose not_before has passed. NOT_FOUND when
 * there is none. */
bool store_job_next(struct store *store, int64_t now, struct job_row *ret, struct mc_error *err) MC_CHECKED;

struct job_change {
	enum job_state to;
	const char *reason_code, *reason_detail; /* code NULL: clears the reason */
	int64_t now_ms;
	int64_t not_before_ms; /* back to queued: do not start before */
	bool attempt, crash;   /* count one */
	const struct mc_json *artifacts; /* [{path, bytes, sha256}]: to succeeded or failed; or NULL */
};
/* One move of the table with its event "state". CONFLICT when the job is in another state now than
 * `from`; asserts that the move is allowed. Final states set finished_ms and expires_ms and free
 * the inputs. */
bool store_job_move(struct store *store, const char *id, enum job_state from,
    const struct job_change *change, struct mc_error *err) MC_CHECKED;
/* The newest progress of a running job; a "progress" event replaces the one before it. */
bool store_job_progress(struct store *store, const char *id, const struct mc_json *progress, struct mc_error *err) MC_CHECKED;
/* Progress and a further event ("layer", "warning", "started", ...) in one transaction; progress may
 * be NULL. */
bool store_job_event(struct store *store, const char *id, const char *type, const struct mc_json *data,
    const struct mc_json *progress, struct mc_error *err) MC_CHECKED;
/* CONFLICT unless finished. */
bool store_job_delete(struct store *store, const char *id, struct mc_error *err) MC_CHECKED;
/* Finished jobs whose time is over: id of one, NOT_FOUND when there is none. */
bool store_job_expired(struct store *store, int64_t now, char ret_id[ID_SIZE], struct mc_error *err) MC_CHECKED;
/* At start: running -> queued, canceling -> canceled. */
bool store_recover(struct store *store, int64_t now, size_t *ret_jobs, struct mc_error *err) MC_CHECKED;
struct store_counts {
	uint64_t jobs[JOB_STATES];
	int64_t oldest_queued_ms; /* 0: none */
};
bool store_counts(struct store *store, struct store_counts *ret, struct mc_error *err) MC_CHECKED;
bool store_count_queued(struct store *store, uint64_t *ret, struct mc_error *err) MC_CHECKED;
/* The median of the last 20 finished jobs, in seconds; 0 when there is none. */
bool store_typical_seconds(struct store *store, double *ret, struct mc_error *err) MC_CHECKED;

/* --- events and artifacts ------------------------------------------------------------------------ */

/* Events of a job after `after`, at most `limit`, as an array of {"id", "type", "time", "data"};
 * type NULL: all. */
struct mc_json *store_events(struct store *store, int64_t job_seq, int64_t after, const char *type,
    uint64_t limit, struct mc_error *err) MC_CHECKED;
/* Array of {path, bytes, sha256} in path order, after `after` (NULL: from the start). */
struct mc_json *store_artifacts(struct store *store, int64_t job_seq, const char *prefix,
    const char *after, uint64_t limit, struct mc_error *err) MC_CHECKED;
/* One; NOT_FOUND when absent. */
bool store_artifact_get(struct store *store, int64_t job_seq, const char *path, char ret_sha256[65],
    uint64_t *ret_bytes, struct mc_error *err) MC_CHECKED;

/* --- models and datasets ------------------------------------------------------------------------- */

struct resource_row {
	int64_t seq;
	char id[ID_SIZE];
	char *body;  /* what GET answers, without links */
	char *path;  /* to open it by: absolute, or relative to an allowed folder */
	char *files; /* snapshot [{name, bytes, mtime_ns, inode}] */
	bool uploaded; /* the file is ours */
	uint64_t bytes;
	char *text_column; /* datasets; or NULL */
	int64_t created_ms;
};
void resource_row_release(struct resource_row *row);
enum resource_kind { RESOURCE_MODEL, RESOURCE_DATASET };

bool store_resource_add(struct store *store, enum resource_kind kind, const struct resource_row *row,
    const struct idempotency *idempotency, const struct store_limits *limits, enum store_added *ret,
    char ret_id[ID_SIZE], struct mc_error *err) MC_CHECKED;
bool store_resource_get(struct store *store, enum resource_kind kind, const char *id,
    struct resource_row *ret, struct mc_error *err) MC_CHECKED;
/* Newest first. key, value: only rows whose body has this string member; NULL: all. */
bool store_resource_list(struct store *store, enum resource_kind kind, const char *key, const char *value,
    int64_t before, uint64_t limit,
    bool (*fn)(void *ctx, const struct resource_row *row, struct mc_error *err), void *ctx,
    int64_t *ret_next, struct mc_error *err) MC_CHECKED;
/* CONFLICT while a job that is not finished uses it. */
bool store_resource_delete(struct store *store, enum resource_kind kind, const char *id, struct mc_error *err) MC_CHECKED;
/* Bytes of all uploads. */
bool store_uploaded_bytes(struct store *store, uint64_t *ret, struct mc_error *err) MC_CHECKED;

#endif
