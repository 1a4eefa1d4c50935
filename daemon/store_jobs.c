/*
 * store_jobs.c - jobs: adding, claiming, moving from state to state, deleting
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_parts.h"

#include "moecal/alloc.h"

#define JOBS_ROUTE "POST /v1/jobs"

/* --- rows --------------------------------------------------------------------------------------
 */

void job_row_release(struct job_row *row)
{
	free(row->principal);
	free(row->reason);
	free(row->spec);
	free(row->request);
	free(row->plan);
	free(row->progress);
	*row = (struct job_row){0};
}

static bool read_row(sqlite3_stmt *s, struct job_row *row, struct mc_error *err)
{
	int64_t *const numbers[] = {&row->priority, &row->deadline_ms, &row->keep_ms,
	    &row->memory_bytes, &row->disk_bytes, &row->attempt, &row->crashes, &row->version,
	    &row->created_ms, &row->started_ms, &row->finished_ms, &row->expires_ms,
	    &row->not_before_ms};
	char **const texts[] = {
	    &row->principal, &row->reason, &row->spec, &row->request, &row->plan, &row->progress};
	int at = 3;
	bool ok = true;

	*row = (struct job_row){.seq = sqlite3_column_int64(s, 0)};
	snprintf(row->id, sizeof row->id, "%s", (const char *)sqlite3_column_text(s, 1));
	mc_assert(job_state_parse((const char *)sqlite3_column_text(s, 2), &row->state));
	for (size_t i = 0; ok && i < sizeof texts / sizeof *texts; i++)
		ok = column_copy(s, at++, texts[i], err);
	for (size_t i = 0; ok && i < sizeof numbers / sizeof *numbers; i++)
		*numbers[i] = sqlite3_column_int64(s, at++);
	if (!ok)
		job_row_release(row);
	return ok;
}

/* The one row of a statement; NOT_FOUND when there is none. */
bool store_job_read_one(struct store *store, sqlite3_stmt *s, const char *where, struct job_row *ret,
    struct mc_error *err)
{
	bool row;

	if (s == NULL || !store_step(store, s, &row, err))
		return false;
	if (!row)
		return mc_fail(err, MC_NOT_FOUND, where, "there is no such job");
	bool ok = read_row(s, ret, err);
	return store_run(store, s, NULL, err) && ok;
}

/* --- adding ------------------------------------------------------------------------------------
 */

static bool count_queued(struct store *store, const char *principal, uint64_t *ret_all,
    uint64_t *ret_own, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "SELECT count(*), total(principal = ?) FROM job WHERE state = 'queued'", err);
	bool row;

	if (s == NULL)
		return false;
	bind_text(s, 1, principal);
	if (!store_step(store, s, &row, err))
		return false;
	*ret_all = (uint64_t)sqlite3_column_int64(s, 0);
	*ret_own = (uint64_t)sqlite3_column_int64(s, 1);
	return store_run(store, s, NULL, err);
}

static bool insert_job(
    struct store *store, const struct job_row *row, int64_t *ret_seq, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(store,
	    "INSERT INTO job(id, principal, state, spec, request, plan, priority, deadline_ms,"
	    " keep_ms, memory_bytes, disk_bytes, created_ms, model)"
	    " VALUES (?1, ?2, 'queued', ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11,"
	    " json_extract(?3, '$.model'))",
	    err);
	const char *const texts[] = {row->id, row->principal, row->spec, row->request, row->plan};
	const int64_t numbers[] = {row->priority, row->deadline_ms, row->keep_ms, row->memory_bytes,
	    row->disk_bytes, row->created_ms};

	if (s == NULL)
		return false;
	for (int i = 0; i < 5; i++)
		bind_text(s, 1 + i, texts[i]);
	for (int i = 0; i < 6; i++)
		sqlite3_bind_int64(s, 6 + i, numbers[i]);
	if (!store_run(store, s, NULL, err))
		return false;
	*ret_seq = sqlite3_last_insert_rowid(store->db);
	return true;
}

static bool insert_inputs(struct store *store, int64_t seq, const struct job_input *inputs,
    size_t count, struct mc_error *err)
{
	for (size_t i = 0; i < count; i++) {
		sqlite3_stmt *s = store_statement(
		    store, "INSERT OR IGNORE INTO input VALUES (?, ?, ?)", err);
		if (s == NULL)
			return false;
		sqlite3_bind_int64(s, 1, seq);
		bind_text(s, 2, inputs[i].kind);
		bind_text(s, 3, inputs[i].id);
		if (!store_run(store, s, NULL, err))
			return false;
		/* deleted since the caller looked at it? */
		s = store_statement(store, "SELECT 1 FROM resource WHERE kind = ? AND id = ?", err);
		bool there = false;
		if (s == NULL)
			return false;
		bind_text(s, 1, inputs[i].kind);
		bind_text(s, 2, inputs[i].id);
		if (!store_step(store, s, &there, err) ||
		    (there && !store_run(store, s, NULL, err)))
			return false;
		if (!there)
			return mc_fail(
			    err, MC_NOT_FOUND, inputs[i].id, "there is no such %s", inputs[i].kind);
	}
	return true;
}

/* {"state", "reason", "attempt"} */
static bool put_state_event(struct store *store, int64_t seq, int64_t now, enum job_state state,
    const char *reason, int64_t attempt, struct mc_error *err)
{
	struct mc_json *data = mc_json_new_object();
	struct mc_json *why = reason == NULL ? mc_json_new_null()
					     : mc_json_parse(reason, strlen(reason), "reason", err);
	bool ok = mc_json_set(data, "state", mc_json_new_string(job_state_name(state)), err) &&
		  mc_json_set(data, "reason", why, err) &&
		  mc_json_set(data, "attempt", mc_json_new_integer(attempt), err) &&
		  store_event_put(store, seq, now, "state", data, err);
	mc_json_free(data);
	return ok;
}

static bool add_job(struct store *store, const struct job_row *row, const struct job_input *inputs,
    size_t inputs_count, const struct idempotency *idempotency, const struct store_limits *limits,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err)
{
	uint64_t all, own;
	int64_t seq;

	if (!store_idempotency_look(store, idempotency, ret, ret_id, err))
		return false;
	if (*ret != ADDED)
		return true;
	if (!count_queued(store, row->principal, &all, &own, err))
		return false;
	if (all >= limits->queued || own >= limits->queued_of_principal) {
		*ret = all >= limits->queued ? ADD_FULL : ADD_QUOTA;
		return true;
	}
	snprintf(ret_id, ID_SIZE, "%s", row->id);
	return insert_job(store, row, &seq, err) &&
	       insert_inputs(store, seq, inputs, inputs_count, err) &&
	       store_idempotency_keep(store, idempotency, row->id, err) &&
	       put_state_event(store, seq, row->created_ms, JOB_QUEUED, NULL, 0, err);
}

bool store_job_add(struct store *store, const struct job_row *row, const struct job_input *inputs,
    size_t inputs_count, const struct idempotency *idempotency, const struct store_limits *limits,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err)
{
	if (!store_begin(store, err))
		return false;
	return store_end(store,
	    add_job(store, row, inputs, inputs_count, idempotency, limits, ret, ret_id, err), err);
}

/* --- reading -----------------------------------------------------------------------------------
 */

static bool get_job(struct store *store, const char *id, struct job_row *ret, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "SELECT " JOB_COLUMNS " FROM job WHERE id = ?", err);

	if (s != NULL)
		bind_text(s, 1, id);
	return store_job_read_one(store, s, id, ret, err);
}

bool store_job_get(struct store *store, const char *id, struct job_row *ret, struct mc_error *err)
{
	if (!store_lock(store, err))
		return false;
	bool ok = get_job(store, id, ret, err);
	store_unlock(store);
	return ok;
}

/* ["queued", "running"] of a set of states. */
static const char *states_text(unsigned states, char text[128])
{
	size_t n = (size_t)snprintf(text, 128, "[");

	for (size_t i = 0; i < JOB_STATES; i++)
		if ((states & 1u << i) != 0)
			n += (size_t)snprintf(text + n, 128 - n, "%s\"%s\"", n > 1 ? "," : "",
			    job_state_name((enum job_state)i));
	snprintf(text + n, 128 - n, "]");
	return text;
}

#define LIST_END                                                                                   \
	" AND (?1 = 0 OR seq < ?1) AND (?3 IS NULL OR model = ?3)"         \
	" ORDER BY seq DESC LIMIT ?4"

/* With states, their index says which rows: few of many are wanted, most often. */
static sqlite3_stmt *list_statement(
    struct store *store, const struct job_filter *filter, struct mc_error *err)
{
	char text[128];
	sqlite3_stmt *s = filter->states == 0
			      ? store_statement(store,
				    "SELECT " JOB_COLUMNS " FROM job WHERE ?2 IS NULL" LIST_END, err)
			      : store_statement(store,
				    "SELECT " JOB_COLUMNS " FROM job WHERE seq IN (SELECT seq FROM job"
				    " INDEXED BY job_state WHERE state IN (SELECT value FROM"
				    " json_each(?2)) AND (?1 = 0 OR seq < ?1))" LIST_END,
				    err);

	if (s == NULL)
		return NULL;
	sqlite3_bind_int64(s, 1, filter->before);
	bind_text(s, 2, filter->states == 0 ? NULL : states_text(filter->states, text));
	bind_text(s, 3, filter->model);
	/* one more tells whether there is a next page */
	sqlite3_bind_int64(s, 4, (int64_t)filter->limit + 1);
	return s;
}

bool store_job_list(struct store *store, const struct job_filter *filter,
    bool (*fn)(void *ctx, const struct job_row *row, struct mc_error *err), void *ctx,
    int64_t *ret_next, struct mc_error *err)
{
	uint64_t count = 0;
	bool more = true;

	*ret_next = 0;
	if (!store_lock(store, err))
		return false;
	sqlite3_stmt *s = list_statement(store, filter, err);
	bool ok = s != NULL;
	for (int64_t last = 0; ok;) {
		struct job_row row;
		ok = store_step(store, s, &more, err);
		if (!ok || !more)
			break;
		if (count++ == filter->limit) {
			*ret_next = last;
			break;
		}
		ok = read_row(s, &row, err);
		last = ok ? row.seq : 0;
		ok = ok && fn(ctx, &row, err);
		if (last != 0)
			job_row_release(&row);
	}
	if (s != NULL)
		sqlite3_reset(s);
	store_unlock(store);
	return ok;
}

/* --- moving ------------------------------------------------------------------------------------
 */

static bool put_artifacts(
    struct store *store, int64_t seq, const struct mc_json *artifacts, struct mc_error *err)
{
	for (size_t i = 0; i < mc_json_size(artifacts); i++) {
		const struct mc_json *one = mc_json_at(artifacts, i);
		sqlite3_stmt *s = store_statement(
		    store, "INSERT OR REPLACE INTO artifact VALUES (?, ?, ?, ?)", err);
		if (s == NULL)
			return false;
		sqlite3_bind_int64(s, 1, seq);
		bind_text(s, 2, mc_json_string(mc_json_get(one, "path"), NULL));
		sqlite3_bind_int64(s, 3, mc_json_integer(mc_json_get(one, "bytes")));
		bind_text(s, 4, mc_json_string(mc_json_get(one, "sha256"), NULL));
		if (!store_run(store, s, NULL, err))
			return false;
	}
	return true;
}

static bool free_inputs(struct store *store, int64_t seq, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(store, "DELETE FROM input WHERE job_seq = ?", err);

	if (s != NULL)
		sqlite3_bind_int64(s, 1, seq);
	return store_run(store, s, NULL, err);
}

static char *reason_text(const struct job_change *change, struct mc_error *err)
{
	struct mc_json *json = mc_json_new_object();
	struct mc_buf text;
	char *reason = NULL;

	mc_buf_init(&text, 1 << 16);
	if (mc_json_set(json, "code", mc_json_new_string(change->reason_code), err) &&
	    mc_json_set(json, "detail",
		mc_json_new_string(change->reason_detail != NULL ? change->reason_detail : ""),
		err) &&
	    mc_json_write(json, MC_JSON_COMPACT, &text, err))
		reason = mc_strdup(mc_buf_text(&text), err);
	mc_buf_release(&text);
	mc_json_free(json);
	return reason;
}

static bool update_state(struct store *store, const struct job_row *row,
    const struct job_change *change, const char *reason, struct mc_error *err)
{
	bool final = job_state_is_final(change->to);
	sqlite3_stmt *s = store_statement(store,
	    "UPDATE job SET state = ?2, reason = ?3, version = version + 1, attempt = attempt + ?4,"
	    " crashes = crashes + ?5, not_before_ms = ?6,"
	    " started_ms = CASE WHEN ?2 = 'running' AND started_ms = 0 THEN ?7 ELSE started_ms END,"
	    " finished_ms = ?8, expires_ms = CASE WHEN ?8 > 0 THEN ?8 + keep_ms ELSE 0 END"
	    " WHERE seq = ?1 AND state = ?9",
	    err);
	int changes = 0;

	if (s == NULL)
		return false;
	sqlite3_bind_int64(s, 1, row->seq);
	bind_text(s, 2, job_state_name(change->to));
	bind_text(s, 3, reason);
	sqlite3_bind_int64(s, 4, change->attempt);
	sqlite3_bind_int64(s, 5, change->crash);
	sqlite3_bind_int64(s, 6, change->not_before_ms);
	sqlite3_bind_int64(s, 7, change->now_ms);
	sqlite3_bind_int64(s, 8, final ? change->now_ms : 0);
	bind_text(s, 9, job_state_name(row->state));
	if (!store_run(store, s, &changes, err))
		return false;
	mc_assert(changes == 1);
	return true;
}

bool store_job_move_row(struct store *store, const struct job_row *row,
    const struct job_change *change, struct mc_error *err)
{
	char *reason = NULL;

	mc_assert(job_move_is_allowed(row->state, change->to));
	if (change->reason_code != NULL && (reason = reason_text(change, err)) == NULL)
		return false;
	bool ok = update_state(store, row, change, reason, err) &&
		  put_state_event(store, row->seq, change->now_ms, change->to, reason,
		      row->attempt + change->attempt, err) &&
		  (change->artifacts == NULL ||
		      put_artifacts(store, row->seq, change->artifacts, err)) &&
		  (!job_state_is_final(change->to) || free_inputs(store, row->seq, err));
	free(reason);
	return ok;
}

bool store_job_move(struct store *store, const char *id, enum job_state from,
    const struct job_change *change, struct mc_error *err)
{
	struct job_row row = {0};

	if (!store_begin(store, err))
		return false;
	bool ok = get_job(store, id, &row, err) &&
		  (row.state == from || mc_fail(err, MC_CONFLICT, id, "the job is %s, not %s",
					    job_state_name(row.state), job_state_name(from))) &&
		  store_job_move_row(store, &row, change, err);
	ok = store_end(store, ok, err);
	job_row_release(&row);
	return ok;
}

/* --- progress ----------------------------------------------------------------------------------
 */

static bool set_progress(
    struct store *store, const char *id, const struct mc_json *progress, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "UPDATE job SET progress = ?, version = version + 1 WHERE id = ?", err);

	if (s == NULL || !bind_json(s, 1, progress, err))
		return false;
	bind_text(s, 2, id);
	return store_run(store, s, NULL, err);
}

static bool seq_of(struct store *store, const char *id, int64_t *ret, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(store, "SELECT seq FROM job WHERE id = ?", err);
	bool row;

	if (s == NULL)
		return false;
	bind_text(s, 1, id);
	if (!store_step(store, s, &row, err))
		return false;
	if (!row)
		return mc_fail(err, MC_NOT_FOUND, id, "there is no such job");
	*ret = sqlite3_column_int64(s, 0);
	return store_run(store, s, NULL, err);
}

static bool replace_progress_event(
    struct store *store, int64_t seq, const struct mc_json *progress, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "DELETE FROM event WHERE job_seq = ? AND type = 'progress'", err);

	if (s == NULL)
		return false;
	sqlite3_bind_int64(s, 1, seq);
	return store_run(store, s, NULL, err) &&
	       store_event_put(store, seq, now_ms(), "progress", progress, err);
}

bool store_job_progress(
    struct store *store, const char *id, const struct mc_json *progress, struct mc_error *err)
{
	int64_t seq;

	if (!store_begin(store, err))
		return false;
	return store_end(store,
	    seq_of(store, id, &seq, err) && set_progress(store, id, progress, err) &&
		replace_progress_event(store, seq, progress, err),
	    err);
}

bool store_job_event(struct store *store, const char *id, const char *type,
    const struct mc_json *data, const struct mc_json *progress, struct mc_error *err)
{
	int64_t seq;

	if (!store_begin(store, err))
		return false;
	return store_end(store,
	    seq_of(store, id, &seq, err) &&
		store_event_put(store, seq, now_ms(), type, data, err) &&
		(progress == NULL || set_progress(store, id, progress, err)),
	    err);
}

/* --- ending ------------------------------------------------------------------------------------
 */

static bool delete_job(struct store *store, const char *id, struct mc_error *err)
{
	struct job_row row;

	if (!get_job(store, id, &row, err))
		return false;
	bool final = job_state_is_final(row.state);
	enum job_state state = row.state;
	job_row_release(&row);
	if (!final)
		return mc_fail(
		    err, MC_CONFLICT, id, "the job is %s; cancel it first", job_state_name(state));
	sqlite3_stmt *s = store_statement(store, "DELETE FROM job WHERE id = ?", err);
	if (s == NULL)
		return false;
	bind_text(s, 1, id);
	return store_run(store, s, NULL, err) &&
	       store_idempotency_forget(store, JOBS_ROUTE, id, err);
}

bool store_job_delete(struct store *store, const char *id, struct mc_error *err)
{
	if (!store_begin(store, err))
		return false;
	return store_end(store, delete_job(store, id, err), err);
}
