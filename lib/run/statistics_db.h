/*
 * statistics_db.h - what the files of calibration.db share; nobody else includes it
 */
#ifndef MC_RUN_STATISTICS_DB_H
#define MC_RUN_STATISTICS_DB_H

#include <sqlite3.h>

#include "moecal/statistics.h"

#define MC_DB_VERSION 2

struct mc_statistics {
	sqlite3 *db;
	char *path;
	int version; /* of the file: 1 has no sites */
};

/* The error of the last call. */
bool mc_db_fail(struct mc_statistics *s, struct mc_error *err);
bool mc_db_prepare(
    struct mc_statistics *s, const char *sql, sqlite3_stmt **ret, struct mc_error *err) MC_CHECKED;
/* Runs a statement that returns no row and makes it ready for the next one. */
bool mc_db_step(struct mc_statistics *s, sqlite3_stmt *statement, struct mc_error *err) MC_CHECKED;
/* MC_NO_INDEX is NULL. */
void mc_db_bind_index(sqlite3_stmt *statement, int column, size_t index);
/* The sites of a layer, within its transaction. */
bool mc_db_add_sites(
    struct mc_statistics *s, const struct mc_layer_row *layer, struct mc_error *err) MC_CHECKED;

#endif
