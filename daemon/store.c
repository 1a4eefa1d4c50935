/*
 * store.c - the connection: opening, migrating, transactions, waiting
 *
 * One connection behind one mutex. That is enough for tens of statements a second, and SQLite
 * before 3.51.3 can lose committed WAL data when two connections race a checkpoint.
 */
#include "store.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <time.h>
#include <unistd.h>

#include "metrics.h"
#include "schema.h"
#include "store_parts.h"

#include "moecal/alloc.h"
#include "moecal/file.h"

#define MAX_ROW_BYTES (16 << 20)

/* --- failing -----------------------------------------------------------------------------------
 */

bool store_fail(struct store *store, struct mc_error *err)
{
	int code = sqlite3_errcode(store->db) & 0xff;
	enum mc_code mc = code == SQLITE_FULL     ? MC_NO_SPACE
			  : code == SQLITE_NOMEM  ? MC_NO_MEMORY
			  : code == SQLITE_TOOBIG ? MC_INVALID
						  : MC_IO;

	/* after these nobody knows what the file holds; full disks and memory pass */
	if (code == SQLITE_IOERR || code == SQLITE_CORRUPT || code == SQLITE_NOTADB)
		store->failed = true;
	return mc_fail(err, mc, "database", "%s", sqlite3_errmsg(store->db));
}

static bool require_works(struct store *store, struct mc_error *err)
{
	return !store->failed ||
	       mc_fail(err, MC_IO, "database", "it failed before and is not touched any more");
}

static bool execute(struct store *store, const char *sql, struct mc_error *err)
{
	return sqlite3_exec(store->db, sql, NULL, NULL, NULL) == SQLITE_OK ||
	       store_fail(store, err);
}

/* --- statements --------------------------------------------------------------------------------
 */

sqlite3_stmt *store_statement(struct store *store, const char *sql, struct mc_error *err)
{
	for (size_t i = 0; i < STORE_STATEMENTS; i++) {
		if (store->prepared[i].sql == sql)
			return store->prepared[i].statement;
		if (store->prepared[i].sql != NULL)
			continue;
		sqlite3_stmt *statement = NULL;
		if (sqlite3_prepare_v3(store->db, sql, -1, SQLITE_PREPARE_PERSISTENT, &statement,
			NULL) != SQLITE_OK) {
			(void)store_fail(store, err);
			return NULL;
		}
		store->prepared[i].sql = sql;
		store->prepared[i].statement = statement;
		return statement;
	}
	mc_assert(!"more statements than STORE_STATEMENTS");
	return NULL;
}

static void finish(sqlite3_stmt *statement)
{
	sqlite3_reset(statement);
	sqlite3_clear_bindings(statement);
}

bool store_step(struct store *store, sqlite3_stmt *statement, bool *ret_row, struct mc_error *err)
{
	int code = sqlite3_step(statement);

	*ret_row = code == SQLITE_ROW;
	if (code == SQLITE_ROW)
		return true;
	bool ok = code == SQLITE_DONE || store_fail(store, err);
	finish(statement);
	return ok;
}

bool store_run(struct store *store, sqlite3_stmt *statement, int *ret_changes, struct mc_error *err)
{
	bool row = true, ok = statement != NULL;

	while (ok && row)
		ok = store_step(store, statement, &row, err);
	if (ok && ret_changes != NULL)
		*ret_changes = sqlite3_changes(store->db);
	return ok;
}

void bind_text(sqlite3_stmt *statement, int at, const char *text)
{
	if (text == NULL)
		sqlite3_bind_null(statement, at);
	else
		sqlite3_bind_text(statement, at, text, -1, SQLITE_TRANSIENT);
}

bool bind_json(sqlite3_stmt *statement, int at, const struct mc_json *json, struct mc_error *err)
{
	struct mc_buf text;

	if (json == NULL) {
		sqlite3_bind_null(statement, at);
		return true;
	}
	mc_buf_init(&text, MAX_ROW_BYTES);
	bool ok = mc_json_write(json, MC_JSON_COMPACT, &text, err);
	if (ok)
		bind_text(statement, at, mc_buf_text(&text));
	mc_buf_release(&text);
	return ok;
}

bool column_copy(sqlite3_stmt *statement, int at, char **ret, struct mc_error *err)
{
	const char *text = (const char *)sqlite3_column_text(statement, at);

	*ret = NULL;
	if (text == NULL)
		return sqlite3_column_type(statement, at) == SQLITE_NULL ||
		       mc_fail(err, MC_NO_MEMORY, "database", "no memory for a row");
	*ret = mc_strdup(text, err);
	return *ret != NULL;
}

/* --- transactions ------------------------------------------------------------------------------
 */

static int64_t monotonic_us(void)
{
	struct timespec now;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

bool store_lock(struct store *store, struct mc_error *err)
{
	pthread_mutex_lock(&store->lock);
	if (require_works(store, err))
		return true;
	pthread_mutex_unlock(&store->lock);
	return false;
}

void store_unlock(struct store *store)
{
	pthread_mutex_unlock(&store->lock);
}

bool store_begin(struct store *store, struct mc_error *err)
{
	if (!store_lock(store, err))
		return false;
	store->began = monotonic_us();
	if (execute(store, "BEGIN IMMEDIATE", err))
		return true;
	store_unlock(store);
	return false;
}

bool store_end(struct store *store, bool ok, struct mc_error *err)
{
	/* a statement that a failure left half-way would keep the transaction open */
	for (size_t i = 0; !ok && i < STORE_STATEMENTS && store->prepared[i].sql != NULL; i++)
		finish(store->prepared[i].statement);
	ok = ok && execute(store, "COMMIT", err);
	if (!ok && sqlite3_get_autocommit(store->db) == 0)
		sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
	if (ok) {
		store->generation++;
		pthread_cond_broadcast(&store->changed);
		if (store->metrics != NULL)
			metrics_observe(store->metrics, HISTOGRAM_COMMIT,
			    (double)(monotonic_us() - store->began) / 1e6);
	}
	store_unlock(store);
	return ok;
}

/* --- waiting -----------------------------------------------------------------------------------
 */

uint64_t store_generation(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	uint64_t generation = store->generation;
	pthread_mutex_unlock(&store->lock);
	return generation;
}

void store_wait(struct store *store, uint64_t generation, int64_t until)
{
	struct timespec at = {.tv_sec = until / 1000, .tv_nsec = until % 1000 * 1000000};

	pthread_mutex_lock(&store->lock);
	while (store->generation == generation && !store->awake &&
	       pthread_cond_timedwait(&store->changed, &store->lock, &at) != ETIMEDOUT)
		;
	pthread_mutex_unlock(&store->lock);
}

void store_poke(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	store->generation++;
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

void store_wake_all(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	store->awake = true;
	pthread_cond_broadcast(&store->changed);
	pthread_mutex_unlock(&store->lock);
}

bool store_is_failed(struct store *store)
{
	pthread_mutex_lock(&store->lock);
	bool failed = store->failed;
	pthread_mutex_unlock(&store->lock);
	return failed;
}

/* --- opening -----------------------------------------------------------------------------------
 */

static bool read_number(struct store *store, const char *sql, int64_t *ret, struct mc_error *err)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(store->db, sql, -1, &statement, NULL) != SQLITE_OK)
		return store_fail(store, err);
	bool ok = sqlite3_step(statement) == SQLITE_ROW || store_fail(store, err);
	if (ok)
		*ret = sqlite3_column_int64(statement, 0);
	sqlite3_finalize(statement);
	return ok;
}

static bool configure(struct store *store, struct mc_error *err)
{
	sqlite3_extended_result_codes(store->db, 1);
	sqlite3_busy_timeout(store->db, 5000);
	sqlite3_db_config(store->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
	sqlite3_limit(store->db, SQLITE_LIMIT_LENGTH, MAX_ROW_BYTES);
	sqlite3_limit(store->db, SQLITE_LIMIT_ATTACHED, 1); /* VACUUM INTO needs one */
	return execute(store,
	    "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA foreign_keys=ON;"
	    "PRAGMA trusted_schema=OFF; PRAGMA temp_store=MEMORY; PRAGMA wal_autocheckpoint=1000;",
	    err);
}

/* VACUUM INTO keeps the original as it is and fails when the copy exists. */
static bool copy_to(struct store *store, const char *path, struct mc_error *err)
{
	sqlite3_stmt *statement;

	if (sqlite3_prepare_v2(store->db, "VACUUM INTO ?", -1, &statement, NULL) != SQLITE_OK)
		return store_fail(store, err);
	bind_text(statement, 1, path);
	bool ok = sqlite3_step(statement) == SQLITE_DONE ||
		  mc_fail(err, MC_IO, path, "cannot be written: %s", sqlite3_errmsg(store->db));
	sqlite3_finalize(statement);
	return ok;
}

bool store_backup(struct store *store, const char *path, struct mc_error *err)
{
	if (!store_lock(store, err))
		return false;
	bool ok = copy_to(store, path, err);
	store_unlock(store);
	return ok;
}

static bool migrate(struct store *store, int64_t version, struct mc_error *err)
{
	char text[96];

	if (version > 0 && version < schema_version) {
		char *copy = mc_format(err, "%s.version-%lld.%lld", store->path, (long long)version,
		    (long long)now_ms());
		bool ok = copy != NULL && copy_to(store, copy, err);
		free(copy);
		if (!ok)
			return false;
	}
	for (int64_t step = version; step < schema_version; step++) {
		snprintf(text, sizeof text, "PRAGMA application_id=%d; PRAGMA user_version=%lld;",
		    SCHEMA_APPLICATION_ID, (long long)step + 1);
		if (!execute(store, "BEGIN IMMEDIATE", err))
			return false;
		if (!execute(store, schema_steps[step], err) || !execute(store, text, err) ||
		    !execute(store, "COMMIT", err)) {
			sqlite3_exec(store->db, "ROLLBACK", NULL, NULL, NULL);
			return false;
		}
	}
	return true;
}

static bool check(struct store *store, struct mc_error *err)
{
	int64_t id = 0, version = 0, tables = 0, sound = 0;

	if (!read_number(store, "PRAGMA application_id", &id, err) ||
	    !read_number(store, "PRAGMA user_version", &version, err) ||
	    !read_number(store, "SELECT count(*) FROM sqlite_schema", &tables, err))
		return false;
	if (tables > 0 && id != SCHEMA_APPLICATION_ID)
		return mc_fail(err, MC_UNSUPPORTED, store->path, "is not a database of moecald");
	if (version > schema_version)
		return mc_fail(err, MC_UNSUPPORTED, store->path,
		    "has version %lld, this program knows versions up to %d: start a newer moecald",
		    (long long)version, schema_version);
	if (!read_number(store, "SELECT count(*) FROM pragma_quick_check WHERE quick_check = 'ok'",
		&sound, err))
		return false;
	if (sound != 1)
		return mc_fail(err, MC_CORRUPT, store->path,
		    "is damaged: restore a backup, or look at it with PRAGMA integrity_check");
	return migrate(store, version, err);
}

/* The database's own locks are SQLite's; this one keeps a second daemon out before it looks. */
static bool lock_folder(struct store *store, const char *folder, struct mc_error *err)
{
	char *path = mc_format(err, "%s/lock", folder);

	if (path == NULL)
		return false;
	store->lock_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	bool ok = store->lock_fd >= 0 || mc_fail_errno(err, errno, path, "cannot be opened");
	if (ok && flock(store->lock_fd, LOCK_EX | LOCK_NB) != 0)
		ok = errno == EWOULDBLOCK ? mc_fail(err, MC_CONFLICT, folder,
						"another moecald works in this state folder")
					  : mc_fail_errno(err, errno, path, "cannot be locked");
	free(path);
	return ok;
}

struct store *store_open(const char *folder, struct metrics *metrics, struct mc_error *err)
{
	struct store *store = mc_alloc(1, sizeof *store, "store", err);
	pthread_condattr_t monotonic;

	if (store == NULL)
		return NULL;
	store->lock_fd = -1;
	store->metrics = metrics;
	pthread_mutex_init(&store->lock, NULL);
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_cond_init(&store->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	store->path = mc_format(err, "%s/moecald.db", folder);
	bool ok = store->path != NULL && lock_folder(store, folder, err);
	if (ok && sqlite3_open_v2(store->path, &store->db,
		      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
		      NULL) != SQLITE_OK)
		ok = mc_fail(err, MC_IO, store->path, "cannot be opened: %s",
		    store->db != NULL ? sqlite3_errmsg(store->db) : "no memory");
	if (ok && configure(store, err) && check(store, err) && mc_file_sync_folder(folder, err))
		return store;
	store_close(store);
	return NULL;
}

void store_close(struct store *store)
{
	if (store == NULL)
		return;
	for (size_t i = 0; i < STORE_STATEMENTS; i++)
		sqlite3_finalize(store->prepared[i].statement);
	if (store->db != NULL && !store->failed)
		sqlite3_exec(store->db, "PRAGMA optimize", NULL, NULL, NULL);
	sqlite3_close(store->db);
	if (store->lock_fd >= 0)
		close(store->lock_fd);
	pthread_cond_destroy(&store->changed);
	pthread_mutex_destroy(&store->lock);
	free(store->path);
	free(store);
}
