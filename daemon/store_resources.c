/*
 * store_resources.c - models and datasets, idempotency keys, events, artifacts
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "store_parts.h"

#include "moecal/alloc.h"

/* --- idempotency -------------------------------------------------------------------------------
 */

bool store_idempotency_look(struct store *store, const struct idempotency *idempotency,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err)
{
	bool row;

	*ret = ADDED;
	if (idempotency->key == NULL)
		return true;
	sqlite3_stmt *s = store_statement(store,
	    "SELECT route, fingerprint, resource FROM idempotency WHERE principal = ? AND key = ?",
	    err);
	if (s == NULL)
		return false;
	bind_text(s, 1, idempotency->principal);
	bind_text(s, 2, idempotency->key);
	if (!store_step(store, s, &row, err))
		return false;
	if (!row)
		return true;
	*ret = strcmp((const char *)sqlite3_column_text(s, 0), idempotency->route) == 0 &&
		       strcmp((const char *)sqlite3_column_text(s, 1), idempotency->fingerprint) ==
			   0
		   ? ADDED_BEFORE
		   : ADD_KEY_REUSED;
	snprintf(ret_id, ID_SIZE, "%s", (const char *)sqlite3_column_text(s, 2));
	return store_run(store, s, NULL, err);
}

bool store_idempotency_keep(struct store *store, const struct idempotency *idempotency,
    const char *id, struct mc_error *err)
{
	if (idempotency->key == NULL)
		return true;
	sqlite3_stmt *s = store_statement(
	    store, "INSERT INTO idempotency VALUES (?, ?, ?, ?, ?)", err);
	const char *const texts[] = {idempotency->principal, idempotency->key, idempotency->route,
	    idempotency->fingerprint, id};
	for (int i = 0; s != NULL && i < 5; i++)
		bind_text(s, 1 + i, texts[i]);
	return store_run(store, s, NULL, err);
}

bool store_idempotency_forget(
    struct store *store, const char *route, const char *id, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "DELETE FROM idempotency WHERE route = ? AND resource = ?", err);

	if (s == NULL)
		return false;
	bind_text(s, 1, route);
	bind_text(s, 2, id);
	return store_run(store, s, NULL, err);
}

bool store_idempotency_find(struct store *store, const struct idempotency *idempotency,
    enum store_added *ret, char ret_id[ID_SIZE], struct mc_error *err)
{
	if (!store_lock(store, err))
		return false;
	bool ok = store_idempotency_look(store, idempotency, ret, ret_id, err);
	store_unlock(store);
	return ok;
}

/* --- models and datasets -----------------------------------------------------------------------
 */

static const char *const kind_names[] = {
    [RESOURCE_MODEL] = "model", [RESOURCE_DATASET] = "dataset"};
static const char *const kind_routes[] = {
    [RESOURCE_MODEL] = "POST /v1/models", [RESOURCE_DATASET] = "POST /v1/datasets"};

#define RESOURCE_COLUMNS "seq, id, body, path, files, uploaded, bytes, text_column, created_ms"

void resource_row_release(struct resource_row *row)
{
	free(row->body);
	free(row->path);
	free(row->files);
	free(row->text_column);
	*row = (struct resource_row){0};
}

static bool read_resource(sqlite3_stmt *s, struct resource_row *row, struct mc_error *err)
{
	*row = (struct resource_row){.seq = sqlite3_column_int64(s, 0),
	    .uploaded = sqlite3_column_int(s, 5) != 0,
	    .bytes = (uint64_t)sqlite3_column_int64(s, 6),
	    .created_ms = sqlite3_column_int64(s, 8)};
	snprintf(row->id, sizeof row->id, "%s", (const char *)sqlite3_column_text(s, 1));
	bool ok = column_copy(s, 2, &row->body, err) && column_copy(s, 3, &row->path, err) &&
		  column_copy(s, 4, &row->files, err) && column_copy(s, 7, &row->text_column, err);
	if (!ok)
		resource_row_release(row);
	return ok;
}

static bool get_resource(struct store *store, enum resource_kind kind, const char *id,
    struct resource_row *ret, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "SELECT " RESOURCE_COLUMNS " FROM resource WHERE kind = ? AND id = ?", err);
	bool row;

	if (s == NULL)
		return false;
	bind_text(s, 1, kind_names[kind]);
	bind_text(s, 2, id);
	if (!store_step(store, s, &row, err))
		return false;
	if (!row)
		return mc_fail(err, MC_NOT_FOUND, id, "there is no such %s", kind_names[kind]);
	bool ok = read_resource(s, ret, err);
	return store_run(store, s, NULL, err) && ok;
}

bool store_resource_get(struct store *store, enum resource_kind kind, const char *id,
    struct resource_row *ret, struct mc_error *err)
{
	if (!store_lock(store, err))
		return false;
	bool ok = get_resource(store, kind, id, ret, err);
	store_unlock(store);
	return ok;
}

/* Rows of the kind, bytes of its uploads, whether the name is taken. */
static bool count_resources(struct store *store, enum resource_kind kind, const char *id,
    uint64_t *ret_rows, uint64_t *ret_bytes, bool *ret_taken, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(store,
	    "SELECT count(*), total(bytes * uploaded), total(id = ?2) FROM resource WHERE kind = "
	    "?1",
	    err);
	bool row;

	if (s == NULL)
		return false;
	bind_text(s, 1, kind_names[kind]);
	bind_text(s, 2, id);
	if (!store_step(store, s, &row, err))
		return false;
	*ret_rows = (uint64_t)sqlite3_column_int64(s, 0);
	*ret_bytes = (uint64_t)sqlite3_column_int64(s, 1);
	*ret_taken = sqlite3_column_int64(s, 2) > 0;
	return store_run(store, s, NULL, err);
}

static bool insert_resource(struct store *store, enum resource_kind kind,
    const struct resource_row *row, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(store,
	    "INSERT INTO resource(kind, id, body, path, files, text_column, uploaded, bytes, "
	    "created_ms)"
	    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
	    err);
	const char *const texts[] = {
	    kind_names[kind], row->id, row->body, row->path, row->files, row->text_column};

	if (s == NULL)
		return false;
	for (int i = 0; i < 6; i++)
		bind_text(s, 1 + i, texts[i]);
	sqlite3_bind_int64(s, 7, row->uploaded);
	sqlite3_bind_int64(s, 8, (int64_t)row->bytes);
	sqlite3_bind_int64(s, 9, row->created_ms);
	return store_run(store, s, NULL, err);
}

static bool add_resource(struct store *store, enum resource_kind kind,
    const struct resource_row *row, const struct idempotency *idempotency,
    const struct store_limits *limits, enum store_added *ret, char ret_id[ID_SIZE],
    struct mc_error *err)
{
	uint64_t rows, bytes;
	bool taken;

	if (!store_idempotency_look(store, idempotency, ret, ret_id, err))
		return false;
	if (*ret != ADDED)
		return true;
	if (!count_resources(store, kind, row->id, &rows, &bytes, &taken, err))
		return false;
	if (taken)
		*ret = ADD_NAME_TAKEN;
	else if (rows >= limits->rows || (row->uploaded && bytes + row->bytes > limits->bytes))
		*ret = ADD_FULL;
	if (*ret != ADDED)
		return true;
	snprintf(ret_id, ID_SIZE, "%s", row->id);
	return insert_resource(store, kind, row, err) &&
	       store_idempotency_keep(store, idempotency, row->id, err);
}

bool store_resource_add(struct store *store, enum resource_kind kind,
    const struct resource_row *row, const struct idempotency *idempotency,
    const struct store_limits *limits, enum store_added *ret, char ret_id[ID_SIZE],
    struct mc_error *err)
{
	if (!store_begin(store, err))
		return false;
	return store_end(
	    store, add_resource(store, kind, row, idempotency, limits, ret, ret_id, err), err);
}

/* At most limit rows; *ret_next: where the next page begins, 0: nowhere. */
static bool read_page(struct store *store, sqlite3_stmt *s, uint64_t limit,
    struct resource_row *rows, uint64_t *ret_count, int64_t *ret_next, struct mc_error *err)
{
	bool more = true;

	while (store_step(store, s, &more, err)) {
		if (!more)
			return true;
		if (*ret_count == limit) {
			*ret_next = rows[limit - 1].seq;
			return true;
		}
		if (!read_resource(s, &rows[*ret_count], err))
			return false;
		(*ret_count)++;
	}
	return false;
}

bool store_resource_list(struct store *store, enum resource_kind kind, const char *key,
    const char *value, int64_t before, uint64_t limit,
    bool (*fn)(void *ctx, const struct resource_row *row, struct mc_error *err), void *ctx,
    int64_t *ret_next, struct mc_error *err)
{
	uint64_t count = 0;
	struct resource_row *rows = mc_alloc(limit, sizeof *rows, "rows", err);

	*ret_next = 0;
	if (rows == NULL || !store_lock(store, err)) {
		free(rows);
		return false;
	}
	sqlite3_stmt *s = store_statement(store,
	    "SELECT " RESOURCE_COLUMNS " FROM resource WHERE kind = ?1 AND (?2 = 0 OR seq < ?2)"
	    " AND (?3 IS NULL OR json_extract(body, '$.' || ?3) = ?4) ORDER BY seq DESC LIMIT ?5",
	    err);
	bool ok = s != NULL;
	if (ok) {
		bind_text(s, 1, kind_names[kind]);
		sqlite3_bind_int64(s, 2, before);
		bind_text(s, 3, key);
		bind_text(s, 4, value);
		sqlite3_bind_int64(s, 5, (int64_t)limit + 1);
		ok = read_page(store, s, limit, rows, &count, ret_next, err);
		sqlite3_reset(s);
	}
	store_unlock(store);
	/* it may look at files, on disks that do not answer: nobody waits for that but who asked */
	for (uint64_t i = 0; i < count; i++) {
		ok = ok && fn(ctx, &rows[i], err);
		resource_row_release(&rows[i]);
	}
	free(rows);
	return ok;
}

static bool require_unused(
    struct store *store, enum resource_kind kind, const char *id, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(store,
	    "SELECT job.id FROM input JOIN job ON job.seq = input.job_seq"
	    " WHERE input.kind = ? AND input.id = ? LIMIT 1",
	    err);
	bool row;

	if (s == NULL)
		return false;
	bind_text(s, 1, kind_names[kind]);
	bind_text(s, 2, id);
	if (!store_step(store, s, &row, err))
		return false;
	if (!row)
		return true;
	(void)mc_fail(err, MC_CONFLICT, id, "job %s needs this %s and is not finished",
	    (const char *)sqlite3_column_text(s, 0), kind_names[kind]);
	sqlite3_reset(s);
	return false;
}

bool store_resource_delete(
    struct store *store, enum resource_kind kind, const char *id, struct mc_error *err)
{
	struct resource_row row;
	int changes = 0;

	if (!store_begin(store, err))
		return false;
	bool ok = get_resource(store, kind, id, &row, err);
	if (ok) {
		resource_row_release(&row);
		ok = require_unused(store, kind, id, err);
	}
	sqlite3_stmt *s = ok ? store_statement(
				   store, "DELETE FROM resource WHERE kind = ? AND id = ?", err)
			     : NULL;
	if (s != NULL) {
		bind_text(s, 1, kind_names[kind]);
		bind_text(s, 2, id);
	}
	ok = ok && s != NULL && store_run(store, s, &changes, err) &&
	     store_idempotency_forget(store, kind_routes[kind], id, err);
	return store_end(store, ok, err);
}

bool store_uploaded_bytes(struct store *store, uint64_t *ret, struct mc_error *err)
{
	uint64_t rows;
	bool taken;

	if (!store_lock(store, err))
		return false;
	bool ok = count_resources(store, RESOURCE_DATASET, "", &rows, ret, &taken, err);
	store_unlock(store);
	return ok;
}

/* --- events ------------------------------------------------------------------------------------
 */

/* All rows of a statement that is bound already. Owned. */
static struct mc_json *read_list(struct store *store, sqlite3_stmt *s,
    bool (*append)(struct mc_json *list, sqlite3_stmt *s, struct mc_error *err), struct mc_error *err)
{
	struct mc_json *list = mc_json_new_array();
	bool row = true, ok = list != NULL || mc_fail(err, MC_NO_MEMORY, "database", "no memory for a list");

	while (ok && (ok = store_step(store, s, &row, err)) && row)
		ok = append(list, s, err);
	sqlite3_reset(s);
	if (ok)
		return list;
	mc_json_free(list);
	return NULL;
}

bool store_event_put(struct store *store, int64_t job_seq, int64_t now, const char *type,
    const struct mc_json *data, struct mc_error *err)
{
	sqlite3_stmt *s = store_statement(
	    store, "INSERT INTO event(job_seq, time_ms, type, data) VALUES (?, ?, ?, ?)", err);

	if (s == NULL || !bind_json(s, 4, data, err))
		return false;
	sqlite3_bind_int64(s, 1, job_seq);
	sqlite3_bind_int64(s, 2, now);
	bind_text(s, 3, type);
	return store_run(store, s, NULL, err);
}

static bool append_event(struct mc_json *list, sqlite3_stmt *s, struct mc_error *err)
{
	char time[TIME_SIZE];
	struct mc_json *one = mc_json_new_object();
	const char *data = (const char *)sqlite3_column_text(s, 3);

	return mc_json_append(list, one, err) &&
	       mc_json_set(one, "id", mc_json_new_integer(sqlite3_column_int64(s, 0)), err) &&
	       mc_json_set(
		   one, "type", mc_json_new_string((const char *)sqlite3_column_text(s, 2)), err) &&
	       mc_json_set(one, "time",
		   mc_json_new_string(time_text(sqlite3_column_int64(s, 1), time)), err) &&
	       mc_json_set(one, "data", mc_json_parse(data, strlen(data), "event", err), err);
}

struct mc_json *store_events(struct store *store, int64_t job_seq, int64_t after, const char *type,
    uint64_t limit, struct mc_error *err)
{
	if (!store_lock(store, err))
		return NULL;
	sqlite3_stmt *s = store_statement(store,
	    "SELECT seq, time_ms, type, data FROM event WHERE job_seq = ?1 AND seq > ?2"
	    " AND (?3 IS NULL OR type = ?3) ORDER BY seq LIMIT ?4",
	    err);
	if (s != NULL) {
		sqlite3_bind_int64(s, 1, job_seq);
		sqlite3_bind_int64(s, 2, after);
		bind_text(s, 3, type);
		sqlite3_bind_int64(s, 4, (int64_t)limit);
	}
	struct mc_json *list = s != NULL ? read_list(store, s, append_event, err) : NULL;
	store_unlock(store);
	return list;
}

/* --- artifacts ---------------------------------------------------------------------------------
 */

static bool append_artifact(struct mc_json *list, sqlite3_stmt *s, struct mc_error *err)
{
	struct mc_json *one = mc_json_new_object();

	return mc_json_append(list, one, err) &&
	       mc_json_set(
		   one, "path", mc_json_new_string((const char *)sqlite3_column_text(s, 0)), err) &&
	       mc_json_set(one, "bytes", mc_json_new_integer(sqlite3_column_int64(s, 1)), err) &&
	       mc_json_set(
		   one, "sha256", mc_json_new_string((const char *)sqlite3_column_text(s, 2)), err);
}

struct mc_json *store_artifacts(struct store *store, int64_t job_seq, const char *prefix,
    const char *after, uint64_t limit, struct mc_error *err)
{
	if (!store_lock(store, err))
		return NULL;
	sqlite3_stmt *s = store_statement(store,
	    "SELECT path, bytes, sha256 FROM artifact WHERE job_seq = ?1"
	    " AND (?2 IS NULL OR substr(path, 1, length(?2)) = ?2)"
	    " AND (?3 IS NULL OR path > ?3) ORDER BY path LIMIT ?4",
	    err);
	if (s != NULL) {
		sqlite3_bind_int64(s, 1, job_seq);
		bind_text(s, 2, prefix);
		bind_text(s, 3, after);
		sqlite3_bind_int64(s, 4, (int64_t)limit);
	}
	struct mc_json *list = s != NULL ? read_list(store, s, append_artifact, err) : NULL;
	store_unlock(store);
	return list;
}

bool store_artifact_get(struct store *store, int64_t job_seq, const char *path, char ret_sha256[65],
    uint64_t *ret_bytes, struct mc_error *err)
{
	bool row = false;

	if (!store_lock(store, err))
		return false;
	sqlite3_stmt *s = store_statement(
	    store, "SELECT bytes, sha256 FROM artifact WHERE job_seq = ? AND path = ?", err);
	if (s != NULL) {
		sqlite3_bind_int64(s, 1, job_seq);
		bind_text(s, 2, path);
	}
	bool ok = s != NULL && store_step(store, s, &row, err);
	if (ok && row) {
		*ret_bytes = (uint64_t)sqlite3_column_int64(s, 0);
		snprintf(ret_sha256, 65, "%s", (const char *)sqlite3_column_text(s, 1));
		ok = store_run(store, s, NULL, err);
	} else if (ok) {
		ok = mc_fail(err, MC_NOT_FOUND, path, "there is no such artifact");
	}
	store_unlock(store);
	return ok;
}
