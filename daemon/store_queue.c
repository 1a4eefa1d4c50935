/*
 * store_queue.c - the queue as a whole: what is next, what is over its time, what a crash left, counts
 */
#include <stdio.h>
#include <string.h>

#include "store_parts.h"

/* --- next --------------------------------------------------------------------------------------- */

bool store_job_next(struct store *store, int64_t now, struct job_row *ret, struct mc_error *err)
{
	if (!store_lock(store, err))
		return false;
	sqlite3_stmt *s = store_statement(store,
	    "SELECT " JOB_COLUMNS " FROM job WHERE state = 'queued' AND not_before_ms <= ?"
	    " ORDER BY priority DESC, seq LIMIT 1",
	    err);
	if (s != NULL)
		sqlite3_bind_int64(s, 1, now);
	bool ok = store_job_read_one(store, s, "queue", ret, err);
	store_unlock(store);
	return ok;
}

/* --- over --------------------------------------------------------------------------------------- */

bool store_job_expired(struct store *store, int64_t now, char ret_id[ID_SIZE], struct mc_error *err)
{
	bool row = false;

	if (!store_lock(store, err))
		return false;
	sqlite3_stmt *s = store_statement(store,
	    "SELECT id FROM job WHERE expires_ms > 0 AND expires_ms <= ? ORDER BY expires_ms LIMIT "
	    "1",
	    err);
	if (s != NULL)
		sqlite3_bind_int64(s, 1, now);
	bool ok = s != NULL && store_step(store, s, &row, err);
	if (ok && row) {
		snprintf(ret_id, ID_SIZE, "%s", (const char *)sqlite3_column_text(s, 0));
		ok = store_run(store, s, NULL, err);
	} else if (ok) {
		ok = mc_fail(err, MC_NOT_FOUND, "jobs", "none is over its time");
	}
	store_unlock(store);
	return ok;
}

/* One job that an earlier daemon left in work; false in *ret_more when there is none. */
static bool recover_one(struct store *store, int64_t now, bool *ret_more, struct mc_error *err)
{
	struct job_row row;
	struct mc_error absent;

	mc_error_init(&absent);
	sqlite3_stmt *s = store_statement(store,
	    "SELECT " JOB_COLUMNS " FROM job WHERE state IN ('running', 'canceling') LIMIT 1", err);
	*ret_more = store_job_read_one(store, s, "jobs", &row, &absent);
	if (!*ret_more)
		return absent.code == MC_NOT_FOUND ||
		       mc_fail(err, absent.code, absent.where, "%s", absent.text);
	/* the service died, not the job's process: no crash of the job */
	struct job_change change = {.now_ms = now,
	    .to = row.state == JOB_CANCELING ? JOB_CANCELED : JOB_QUEUED};
	bool ok = store_job_move_row(store, &row, &change, err);
	job_row_release(&row);
	return ok;
}

bool store_recover(struct store *store, int64_t now, size_t *ret_jobs, struct mc_error *err)
{
	bool more = true, ok = true;

	*ret_jobs = 0;
	if (!store_begin(store, err))
		return false;
	while (ok && more) {
		ok = recover_one(store, now, &more, err);
		*ret_jobs += ok && more;
	}
	return store_end(store, ok, err);
}

/* --- numbers -----------------------------------------------------------------------------------
 */

bool store_counts(struct store *store, struct store_counts *ret, struct mc_error *err)
{
	bool row = true;

	*ret = (struct store_counts){0};
	if (!store_lock(store, err))
		return false;
	/* two questions that an index answers alone, however many jobs are kept */
	sqlite3_stmt *s = store_statement(
	    store, "SELECT state, count(*) FROM job GROUP BY state", err);
	bool ok = s != NULL;
	while (ok && (ok = store_step(store, s, &row, err)) && row) {
		enum job_state state;
		if (job_state_parse((const char *)sqlite3_column_text(s, 0), &state))
			ret->jobs[state] = (uint64_t)sqlite3_column_int64(s, 1);
	}
	s = ok ? store_statement(
		     store, "SELECT min(created_ms) FROM job WHERE state = 'queued'", err)
	       : NULL;
	ok = s != NULL && store_step(store, s, &row, err);
	if (ok && row) {
		ret->oldest_queued_ms = sqlite3_column_int64(s, 0);
		ok = store_run(store, s, NULL, err);
	}
	store_unlock(store);
	return ok;
}

bool store_count_queued(struct store *store, uint64_t *ret, struct mc_error *err)
{
	bool row = false;

	*ret = 0;
	if (!store_lock(store, err))
		return false;
	sqlite3_stmt *s = store_statement(
	    store, "SELECT count(*) FROM job WHERE state = 'queued'", err);
	bool ok = s != NULL && store_step(store, s, &row, err);
	if (ok && row) {
		*ret = (uint64_t)sqlite3_column_int64(s, 0);
		ok = store_run(store, s, NULL, err);
	}
	store_unlock(store);
	return ok;
}

bool store_typical_seconds(struct store *store, double *ret, struct mc_error *err)
{
	double seconds[20];
	size_t count = 0;
	bool row = true;

	*ret = 0;
	if (!store_lock(store, err))
		return false;
	sqlite3_stmt *s = store_statement(store,
	    "SELECT seconds FROM (SELECT (finished_ms - started_ms) / 1000.0 AS seconds FROM job"
	    " WHERE state IN ('succeeded', 'failed') AND started_ms > 0 ORDER BY seq DESC LIMIT 20)"
	    " ORDER BY seconds",
	    err);
	bool ok = s != NULL;
	while (ok && (ok = store_step(store, s, &row, err)) && row)
		seconds[count++] = sqlite3_column_double(s, 0);
	if (ok && count > 0)
		*ret = seconds[count / 2];
	store_unlock(store);
	return ok;
}
