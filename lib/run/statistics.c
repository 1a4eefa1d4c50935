/*
 * statistics.c - calibration.db; one of the files that know SQLite. Sites: statistics_sites.c
 *
 * Durability: rollback journal, synchronous FULL, one transaction a layer. A layer's row is written
 * in the same transaction as its experts, modules and channels, so it is there with all of them or
 * not at all.
 */
#include "moecal/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "statistics_db.h"

#include "moecal/alloc.h"
#include "moecal/model.h"

static const char schema[] =
    "CREATE TABLE run(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;"
    "CREATE TABLE layer(\"index\" INTEGER PRIMARY KEY, name TEXT NOT NULL, tokens INTEGER NOT NULL,"
    " seconds REAL NOT NULL, flops REAL NOT NULL) STRICT;"
    "CREATE TABLE expert(layer INTEGER NOT NULL, expert INTEGER NOT NULL, tokens_routed INTEGER "
    "NOT NULL,"
    " tokens_seen INTEGER NOT NULL, routing_weight REAL NOT NULL, share REAL NOT NULL, source TEXT "
    "NOT NULL,"
    " PRIMARY KEY(layer, expert)) STRICT;"
    "CREATE TABLE module(name TEXT PRIMARY KEY, layer INTEGER, expert INTEGER, role TEXT NOT NULL,"
    " rows INTEGER NOT NULL, cols INTEGER NOT NULL, scheme TEXT, algorithm TEXT, source TEXT NOT "
    "NULL,"
    " error_relative REAL, input_min REAL, input_max REAL, input_absmax REAL, input_mean REAL,"
    " input_var REAL, weight_absmax REAL, scale_min REAL, scale_max REAL) STRICT;"
    "CREATE INDEX module_layer ON module(layer, expert);"
    "CREATE TABLE channel(module TEXT NOT NULL, kind TEXT NOT NULL, data BLOB NOT NULL,"
    " PRIMARY KEY(module, kind)) STRICT;"
    "CREATE TABLE site(layer INTEGER NOT NULL, site TEXT NOT NULL, expert INTEGER, channels "
    "INTEGER "
    "NOT NULL,"
    " tokens INTEGER NOT NULL, min BLOB NOT NULL, max BLOB NOT NULL, sum REAL NOT NULL, "
    "sum_squares "
    "REAL NOT NULL,"
    " channel_squares BLOB, channel_absmax BLOB) STRICT;"
    "CREATE UNIQUE INDEX site_place ON site(layer, site, ifnull(expert, -1));"
    "PRAGMA user_version = 2;";

bool mc_db_fail(struct mc_statistics *s, struct mc_error *err)
{
	int code = sqlite3_errcode(s->db) & 0xff;
	enum mc_code mc = code == SQLITE_FULL                               ? MC_NO_SPACE
			  : code == SQLITE_NOMEM                            ? MC_NO_MEMORY
			  : code == SQLITE_CORRUPT || code == SQLITE_NOTADB ? MC_CORRUPT
			  : code == SQLITE_CANTOPEN                         ? MC_NOT_FOUND
									    : MC_IO;
	return mc_fail(err, mc, s->path, "SQLite: %s", sqlite3_errmsg(s->db));
}

static bool execute(struct mc_statistics *s, const char *sql, struct mc_error *err)
{
	return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK || mc_db_fail(s, err);
}

bool mc_db_prepare(
    struct mc_statistics *s, const char *sql, sqlite3_stmt **ret, struct mc_error *err)
{
	return sqlite3_prepare_v2(s->db, sql, -1, ret, NULL) == SQLITE_OK || mc_db_fail(s, err);
}

/* Runs a statement that returns no row and makes it ready for the next one. */
bool mc_db_step(struct mc_statistics *s, sqlite3_stmt *statement, struct mc_error *err)
{
	bool ok = sqlite3_step(statement) == SQLITE_DONE || mc_db_fail(s, err);
	sqlite3_reset(statement);
	return ok;
}

static bool read_version(struct mc_statistics *s, int *ret, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(s, "PRAGMA user_version", &statement, err))
		return false;
	bool ok = sqlite3_step(statement) == SQLITE_ROW || mc_db_fail(s, err);
	if (ok)
		*ret = sqlite3_column_int(statement, 0);
	sqlite3_finalize(statement);
	return ok;
}

static bool make_ready(struct mc_statistics *s, bool read_only, struct mc_error *err)
{
	int version = 0;
	if (sqlite3_extended_result_codes(s->db, 1) != SQLITE_OK ||
	    sqlite3_busy_timeout(s->db, 5000) != SQLITE_OK)
		return mc_db_fail(s, err);
	if (!read_only &&
	    !execute(s,
		"PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL; PRAGMA trusted_schema=OFF;",
		err))
		return false;
	if (!read_version(s, &version, err))
		return false;
	if (version == 0 && !read_only) {
		if (!execute(s, "BEGIN IMMEDIATE", err))
			return false;
		if (!execute(s, schema, err)) {
			sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
			return false;
		}
		s->version = MC_DB_VERSION;
		return execute(s, "COMMIT", err);
	}
	s->version = version;
	if (version == MC_DB_VERSION || (version == 1 && read_only))
		return true;
	if (version == 1)
		return mc_fail(err, MC_CONFLICT, s->path,
		    "cannot go on: the statistics are an earlier program's (version 1, needed %d): "
		    "they can be "
		    "read, but nothing can be added to them; use another output folder",
		    MC_DB_VERSION);
	return mc_fail(err, MC_UNSUPPORTED, s->path,
	    "the statistics have version %d, this program reads versions 1 to %d", version,
	    MC_DB_VERSION);
}

struct mc_statistics *mc_statistics_open(const char *path, bool read_only, struct mc_error *err)
{
	struct mc_statistics *s = mc_alloc(1, sizeof *s, "statistics", err);
	if (s == NULL)
		return NULL;
	s->path = mc_strdup(path, err);
	if (s->path == NULL) {
		free(s);
		return NULL;
	}
	/* For reading, too, the file is opened for writing where it may be: who was killed while it
	 * wrote left a journal that the next reader has to roll back. */
	int flags = SQLITE_OPEN_READWRITE | (read_only ? 0 : SQLITE_OPEN_CREATE);
	bool ok = sqlite3_open_v2(path, &s->db, flags | SQLITE_OPEN_NOMUTEX, NULL) == SQLITE_OK;
	if (!ok && s->db == NULL)
		(void)mc_fail(err, MC_NO_MEMORY, path, "no memory to open the statistics");
	else if (!ok)
		(void)mc_db_fail(s, err);
	if (ok && make_ready(s, read_only, err))
		return s;
	mc_statistics_close(s);
	return NULL;
}

void mc_statistics_close(struct mc_statistics *s)
{
	if (s == NULL)
		return;
	sqlite3_close(s->db);
	free(s->path);
	free(s);
}

bool mc_statistics_set(
    struct mc_statistics *s, const char *key, const char *value, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(
		s, "INSERT OR REPLACE INTO run(key, value) VALUES(?, ?)", &statement, err))
		return false;
	sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, value, -1, SQLITE_STATIC);
	bool ok = mc_db_step(s, statement, err);
	sqlite3_finalize(statement);
	return ok;
}

bool mc_statistics_get(
    struct mc_statistics *s, const char *key, char **ret_value, struct mc_error *err)
{
	sqlite3_stmt *statement;
	*ret_value = NULL;
	if (!mc_db_prepare(s, "SELECT value FROM run WHERE key = ?", &statement, err))
		return false;
	sqlite3_bind_text(statement, 1, key, -1, SQLITE_STATIC);
	int step = sqlite3_step(statement);
	bool ok = step == SQLITE_DONE || step == SQLITE_ROW || mc_db_fail(s, err);
	if (step == SQLITE_ROW) {
		*ret_value = mc_strdup((const char *)sqlite3_column_text(statement, 0), err);
		ok = *ret_value != NULL;
	}
	sqlite3_finalize(statement);
	return ok;
}

void mc_db_bind_index(sqlite3_stmt *statement, int column, size_t index)
{
	if (index == MC_NO_INDEX)
		sqlite3_bind_null(statement, column);
	else
		sqlite3_bind_int64(statement, column, (sqlite3_int64)index);
}

static bool add_experts(struct mc_statistics *s, const struct mc_coverage_layer *coverage,
    const char *const *source, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(s, "INSERT INTO expert VALUES(?, ?, ?, ?, ?, ?, ?)", &statement, err))
		return false;
	bool ok = true;
	for (size_t e = 0; ok && e < coverage->experts; e++) {
		sqlite3_bind_int64(statement, 1, (sqlite3_int64)coverage->layer);
		sqlite3_bind_int64(statement, 2, (sqlite3_int64)e);
		sqlite3_bind_int64(statement, 3, (sqlite3_int64)coverage->expert[e].routed);
		sqlite3_bind_int64(statement, 4, (sqlite3_int64)coverage->expert[e].seen);
		sqlite3_bind_double(statement, 5, coverage->expert[e].routing_weight);
		sqlite3_bind_double(statement, 6, mc_coverage_share(coverage, e));
		sqlite3_bind_text(statement, 7, source[e], -1, SQLITE_STATIC);
		ok = mc_db_step(s, statement, err);
	}
	sqlite3_finalize(statement);
	return ok;
}

static bool add_channel(struct mc_statistics *s, sqlite3_stmt *statement, const char *module,
    const char *kind, const float *data, size_t count, struct mc_error *err)
{
	if (data == NULL)
		return true;
	sqlite3_bind_text(statement, 1, module, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 2, kind, -1, SQLITE_STATIC);
	sqlite3_bind_blob64(statement, 3, data, count * sizeof *data, SQLITE_STATIC);
	return mc_db_step(s, statement, err);
}

static void bind_module(sqlite3_stmt *statement, const struct mc_module_row *m)
{
	sqlite3_bind_text(statement, 1, m->name, -1, SQLITE_STATIC);
	mc_db_bind_index(statement, 2, m->layer);
	mc_db_bind_index(statement, 3, m->expert);
	sqlite3_bind_text(statement, 4, m->role, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 5, (sqlite3_int64)m->rows);
	sqlite3_bind_int64(statement, 6, (sqlite3_int64)m->cols);
	sqlite3_bind_text(statement, 7, m->scheme, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 8, m->algorithm, -1, SQLITE_STATIC);
	sqlite3_bind_text(statement, 9, m->source, -1, SQLITE_STATIC);
	sqlite3_bind_double(statement, 10, m->error_relative);
	const double input[] = {
	    m->input_min, m->input_max, m->input_absmax, m->input_mean, m->input_var};
	for (int i = 0; i < 5; i++)
		if (m->has_input)
			sqlite3_bind_double(statement, 11 + i, input[i]);
		else
			sqlite3_bind_null(statement, 11 + i);
	sqlite3_bind_double(statement, 16, m->weight_absmax);
	sqlite3_bind_double(statement, 17, m->scale_min);
	sqlite3_bind_double(statement, 18, m->scale_max);
}

static bool add_modules(struct mc_statistics *s, const struct mc_module_row *modules, size_t count,
    struct mc_error *err)
{
	sqlite3_stmt *statement = NULL, *channel = NULL;
	bool ok = mc_db_prepare(s, "INSERT INTO module VALUES(?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?,?)",
		      &statement, err) &&
		  mc_db_prepare(s, "INSERT INTO channel VALUES(?, ?, ?)", &channel, err);
	for (size_t i = 0; ok && i < count; i++) {
		bind_module(statement, &modules[i]);
		ok = mc_db_step(s, statement, err) &&
		     add_channel(s, channel, modules[i].name, "input_absmax",
			 modules[i].channel_absmax, modules[i].cols, err) &&
		     add_channel(s, channel, modules[i].name, "input_mean_square",
			 modules[i].channel_mean_square, modules[i].cols, err);
	}
	sqlite3_finalize(statement);
	sqlite3_finalize(channel);
	return ok;
}

static bool add_layer_row(
    struct mc_statistics *s, const struct mc_layer_row *layer, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(s, "INSERT INTO layer VALUES(?, ?, ?, ?, ?)", &statement, err))
		return false;
	sqlite3_bind_int64(statement, 1, (sqlite3_int64)layer->index);
	sqlite3_bind_text(statement, 2, layer->name, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 3, (sqlite3_int64)layer->tokens);
	sqlite3_bind_double(statement, 4, layer->seconds);
	sqlite3_bind_double(statement, 5, layer->flops);
	bool ok = mc_db_step(s, statement, err);
	sqlite3_finalize(statement);
	return ok;
}

bool mc_statistics_add_layer(struct mc_statistics *s, const struct mc_layer_row *layer,
    const struct mc_coverage_layer *coverage, const char *const *expert_source,
    const struct mc_module_row *modules, size_t modules_count, struct mc_error *err)
{
	if (!execute(s, "BEGIN IMMEDIATE", err))
		return false;
	bool ok = add_layer_row(s, layer, err) &&
		  (coverage == NULL || add_experts(s, coverage, expert_source, err)) &&
		  add_modules(s, modules, modules_count, err) && mc_db_add_sites(s, layer, err) &&
		  execute(s, "COMMIT", err);
	if (!ok)
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return ok;
}

bool mc_statistics_layers_done(struct mc_statistics *s, size_t *ret_layers, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(s, "SELECT \"index\" FROM layer ORDER BY \"index\"", &statement, err))
		return false;
	size_t done = 0;
	int step;
	while ((step = sqlite3_step(statement)) == SQLITE_ROW &&
	       sqlite3_column_int64(statement, 0) == (sqlite3_int64)done)
		done++;
	bool ok = step == SQLITE_DONE || step == SQLITE_ROW || mc_db_fail(s, err);
	sqlite3_finalize(statement);
	*ret_layers = done;
	return ok;
}

bool mc_statistics_forget(struct mc_statistics *s, size_t first, struct mc_error *err)
{
	static const char *const statements[] = {
	    "DELETE FROM channel WHERE module IN (SELECT name FROM module WHERE layer >= ?1)",
	    "DELETE FROM module WHERE layer >= ?1", "DELETE FROM expert WHERE layer >= ?1",
	    "DELETE FROM site WHERE layer >= ?1", "DELETE FROM layer WHERE \"index\" >= ?1"};
	if (!execute(s, "BEGIN IMMEDIATE", err))
		return false;
	bool ok = true;
	for (size_t i = 0; ok && i < sizeof statements / sizeof *statements; i++) {
		sqlite3_stmt *statement = NULL;
		ok = mc_db_prepare(s, statements[i], &statement, err);
		if (ok) {
			sqlite3_bind_int64(statement, 1, (sqlite3_int64)first);
			ok = mc_db_step(s, statement, err);
		}
		sqlite3_finalize(statement);
	}
	ok = ok && execute(s, "COMMIT", err);
	if (!ok)
		sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
	return ok;
}

/* One row as an object, columns by name; INTEGER, REAL, TEXT and NULL as JSON has them. */
static bool add_columns(
    sqlite3_stmt *statement, int first, struct mc_json *object, struct mc_error *err)
{
	for (int c = first; c < sqlite3_column_count(statement); c++) {
		struct mc_json *value;
		switch (sqlite3_column_type(statement, c)) {
		case SQLITE_INTEGER:
			value = mc_json_new_integer(sqlite3_column_int64(statement, c));
			break;
		case SQLITE_FLOAT:
			value = mc_json_new_real(sqlite3_column_double(statement, c));
			break;
		case SQLITE_TEXT:
			value = mc_json_new_string((const char *)sqlite3_column_text(statement, c));
			break;
		default:
			value = mc_json_new_null();
			break;
		}
		if (!mc_json_set(object, sqlite3_column_name(statement, c), value, err))
			return false;
	}
	return true;
}

/* All rows of a bound statement as an array of objects; finalizes it. */
static struct mc_json *rows_json(
    struct mc_statistics *s, sqlite3_stmt *statement, struct mc_error *err)
{
	struct mc_json *array = mc_json_new_array();
	int step = SQLITE_DONE;
	bool ok = array != NULL || mc_fail(err, MC_NO_MEMORY, s->path, "no memory for the rows");
	while (ok && (step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct mc_json *object = mc_json_new_object();
		ok = mc_json_append(array, object, err) && add_columns(statement, 0, object, err);
	}
	if (ok && step != SQLITE_DONE)
		ok = mc_db_fail(s, err);
	sqlite3_finalize(statement);
	if (ok)
		return array;
	mc_json_free(array);
	return NULL;
}

struct mc_json *mc_statistics_modules_json(
    struct mc_statistics *s, const struct mc_module_filter *filter, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(s,
		"SELECT * FROM module WHERE (?1 IS NULL OR layer = ?1) AND (?2 IS NULL OR expert = "
		"?2)"
		" AND (?3 IS NULL OR substr(name, 1, length(?3)) = ?3) ORDER BY rowid"
		" LIMIT ?4 OFFSET ?5",
		&statement, err))
		return NULL;
	mc_db_bind_index(statement, 1, filter->layer);
	mc_db_bind_index(statement, 2, filter->expert);
	sqlite3_bind_text(statement, 3, filter->prefix, -1, SQLITE_STATIC);
	sqlite3_bind_int64(statement, 4, filter->limit > 0 ? (sqlite3_int64)filter->limit : -1);
	sqlite3_bind_int64(statement, 5, (sqlite3_int64)filter->skip);
	return rows_json(s, statement, err);
}

struct mc_json *mc_statistics_layers_json(struct mc_statistics *s, struct mc_error *err)
{
	sqlite3_stmt *statement;
	if (!mc_db_prepare(s, "SELECT * FROM layer ORDER BY \"index\"", &statement, err))
		return NULL;
	return rows_json(s, statement, err);
}

/* The expert rows of one layer into `coverage` (counts) and `experts` (objects). */
static bool read_experts(struct mc_statistics *s, sqlite3_stmt *statement,
    struct mc_coverage_layer *coverage, struct mc_json *experts, struct mc_error *err)
{
	size_t capacity = 0;
	int step;
	sqlite3_bind_int64(statement, 1, (sqlite3_int64)coverage->layer);
	while ((step = sqlite3_step(statement)) == SQLITE_ROW) {
		struct mc_json *object = mc_json_new_object();
		if (!mc_grow((void **)&coverage->expert, &capacity, coverage->experts + 1,
			sizeof *coverage->expert, "coverage", err) ||
		    !mc_json_append(experts, object, err) ||
		    !add_columns(statement, 0, object, err))
			return false;
		struct mc_coverage_expert *expert = &coverage->expert[coverage->experts++];
		expert->routed = (uint64_t)sqlite3_column_int64(statement, 1);
		expert->seen = (uint64_t)sqlite3_column_int64(statement, 2);
		expert->routing_weight = sqlite3_column_double(statement, 3);
	}
	sqlite3_reset(statement);
	return step == SQLITE_DONE || mc_db_fail(s, err);
}

static bool add_layer_summary(struct mc_json *object, const struct mc_coverage_layer *coverage,
    uint64_t floor_tokens, uint64_t *starved_total, struct mc_error *err)
{
	struct mc_coverage_summary summary;
	struct mc_json *starved = mc_json_new_array();
	if (!mc_coverage_summarise(coverage, floor_tokens, &summary, err) ||
	    !mc_json_set(object, "starved", starved, err))
		return false;
	for (size_t e = 0; e < coverage->experts; e++)
		if (mc_coverage_is_starved(coverage, e, floor_tokens) &&
		    !mc_json_append(starved, mc_json_new_integer((int64_t)e), err))
			return false;
	*starved_total += summary.starved;
	struct mc_json *more = summary.tokens_to_floor == UINT64_MAX
				   ? mc_json_new_null()
				   : mc_json_new_integer((int64_t)summary.tokens_to_floor);
	return mc_json_set(object, "min", mc_json_new_integer((int64_t)summary.min), err) &&
	       mc_json_set(object, "median", mc_json_new_integer((int64_t)summary.median), err) &&
	       mc_json_set(object, "max", mc_json_new_integer((int64_t)summary.max), err) &&
	       mc_json_set(object, "gini", mc_json_new_real(summary.gini), err) &&
	       mc_json_set(object, "tokens_to_floor", more, err);
}

static bool add_coverage_layer(struct mc_statistics *s, sqlite3_stmt *layers, sqlite3_stmt *experts,
    uint64_t floor_tokens, struct mc_json *array, uint64_t *starved_total, struct mc_error *err)
{
	struct mc_coverage_layer coverage = {.layer = (size_t)sqlite3_column_int64(layers, 0),
	    .tokens = (uint64_t)sqlite3_column_int64(layers, 2)};
	struct mc_json *object = mc_json_new_object(), *list = mc_json_new_array();
	bool ok = read_experts(s, experts, &coverage, list, err);
	if (!ok || coverage.experts == 0) {
		mc_json_free(object);
		mc_json_free(list);
		free(coverage.expert);
		return ok; /* a dense layer has no coverage */
	}
	if (!mc_json_append(array, object, err)) {
		mc_json_free(list);
		free(coverage.expert);
		return false;
	}
	ok = add_columns(layers, 0, object, err) &&
	     add_layer_summary(object, &coverage, floor_tokens, starved_total, err);
	if (ok)
		ok = mc_json_set(object, "experts", list, err);
	else
		mc_json_free(list);
	free(coverage.expert);
	return ok;
}

struct mc_json *mc_statistics_coverage_json(
    struct mc_statistics *s, uint64_t floor_tokens, struct mc_error *err)
{
	sqlite3_stmt *layers = NULL, *experts = NULL;
	struct mc_json *root = mc_json_new_object(), *array = mc_json_new_array();
	uint64_t starved_total = 0;
	bool ok = mc_json_set(root, "layers", array, err) &&
		  mc_db_prepare(s, "SELECT \"index\", name, tokens FROM layer ORDER BY \"index\"",
		      &layers, err) &&
		  mc_db_prepare(s,
		      "SELECT expert, tokens_routed AS routed, tokens_seen AS seen, routing_weight "
		      "AS weight,"
		      " share, source FROM expert WHERE layer = ? ORDER BY expert",
		      &experts, err);
	int step = SQLITE_DONE;
	while (ok && (step = sqlite3_step(layers)) == SQLITE_ROW)
		ok = add_coverage_layer(
		    s, layers, experts, floor_tokens, array, &starved_total, err);
	if (ok && step != SQLITE_DONE)
		ok = mc_db_fail(s, err);
	ok = ok &&
	     mc_json_set(root, "starved_total", mc_json_new_integer((int64_t)starved_total), err) &&
	     mc_json_set(root, "floor_tokens", mc_json_new_integer((int64_t)floor_tokens), err);
	sqlite3_finalize(layers);
	sqlite3_finalize(experts);
	if (ok)
		return root;
	mc_json_free(root);
	return NULL;
}

const char *mc_statistics_library(void)
{
	return sqlite3_libversion();
}
