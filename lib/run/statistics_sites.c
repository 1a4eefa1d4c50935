/*
 * statistics_sites.c - the sites of calibration.db: what other schemes can be folded from
 *
 * Ranges lie in the file as float32 and sums of squares as float64, little-endian as in memory, so
 * they come back bit by bit.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "statistics_db.h"

#include "moecal/model.h"

#define FIND_SITE                                                                                  \
	"SELECT channels, tokens, min, max, sum, sum_squares, channel_squares, channel_absmax"     \
	" FROM site WHERE layer = ? AND site = ? AND ifnull(expert, -1) = ifnull(?, -1)"
#define FIND_EXPERTS                                                                               \
	"SELECT expert, tokens_routed, tokens_seen, routing_weight, layer.tokens FROM expert"      \
	" JOIN layer ON layer.\"index\" = expert.layer WHERE expert.layer = ? ORDER BY expert"

bool mc_statistics_has_sites(const struct mc_statistics *s)
{
	return s->version >= 2;
}

/* --- writing ---------------------------------------------------------------------------------- */

static void bind_blob(sqlite3_stmt *statement, int column, const void *data, size_t bytes)
{
	if (data == NULL)
		sqlite3_bind_null(statement, column);
	else
		sqlite3_bind_blob64(statement, column, data, bytes, SQLITE_STATIC);
}

bool mc_db_add_sites(
    struct mc_statistics *s, const struct mc_layer_row *layer, struct mc_error *err)
{
	sqlite3_stmt *statement;
	bool ok = true;

	if (layer->sites_count == 0)
		return true;
	if (!mc_db_prepare(
		s, "INSERT INTO site VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", &statement, err))
		return false;
	for (size_t i = 0; ok && i < layer->sites_count; i++) {
		const struct mc_site_row *row = &layer->sites[i];
		size_t bytes = row->ranges * row->sequences * sizeof(float);
		sqlite3_bind_int64(statement, 1, (sqlite3_int64)layer->index);
		sqlite3_bind_text(statement, 2, row->site, -1, SQLITE_STATIC);
		mc_db_bind_index(statement, 3, row->expert);
		sqlite3_bind_int64(statement, 4, (sqlite3_int64)row->channels);
		sqlite3_bind_int64(statement, 5, (sqlite3_int64)row->tokens);
		bind_blob(statement, 6, row->min, bytes);
		bind_blob(statement, 7, row->max, bytes);
		sqlite3_bind_double(statement, 8, row->sum);
		sqlite3_bind_double(statement, 9, row->sum_squares);
		bind_blob(statement, 10, row->channel_squares, row->channels * sizeof(double));
		bind_blob(statement, 11, row->channel_absmax, row->channels * sizeof(float));
		ok = mc_db_step(s, statement, err);
	}
	sqlite3_finalize(statement);
	return ok;
}

/* --- reading ---------------------------------------------------------------------------------- */

static bool refuse(struct mc_statistics *s, size_t layer, const struct mc_site_row *row,
    const char *what, struct mc_error *err)
{
	char expert[40] = "";

	if (row->expert != MC_NO_INDEX)
		snprintf(expert, sizeof expert, " of expert %zu", row->expert);
	return mc_fail(
	    err, MC_CORRUPT, s->path, "layer %zu, site %s%s: %s", layer, row->site, expert, what);
}

/* A column of exactly so many bytes; into NULL: not asked for. */
static bool take_blob(sqlite3_stmt *statement, int column, void *into, size_t bytes)
{
	if (into == NULL)
		return true;
	const void *data = sqlite3_column_blob(statement, column);
	if (sqlite3_column_type(statement, column) != SQLITE_BLOB ||
	    (size_t)sqlite3_column_bytes(statement, column) != bytes)
		return false;
	if (bytes > 0)
		memcpy(into, data, bytes);
	return true;
}

/* Each range is one of finite numbers, or empty. */
static bool are_ranges(const struct mc_site_row *row)
{
	for (size_t i = 0; i < row->ranges * row->sequences; i++) {
		float min = row->min[i], max = row->max[i];
		bool empty = min == INFINITY && max == -INFINITY;
		if (!empty && !(isfinite(min) && isfinite(max) && min <= max))
			return false;
	}
	return true;
}

static bool take_row(struct mc_statistics *s, sqlite3_stmt *statement, size_t layer,
    struct mc_site_row *row, struct mc_error *err)
{
	size_t bytes = row->ranges * row->sequences * sizeof(float);

	if ((uint64_t)sqlite3_column_int64(statement, 0) != row->channels)
		return refuse(
		    s, layer, row, "it has another number of channels than the model", err);
	row->tokens = (uint64_t)sqlite3_column_int64(statement, 1);
	row->sum = sqlite3_column_double(statement, 4);
	row->sum_squares = sqlite3_column_double(statement, 5);
	if (!take_blob(statement, 2, row->min, bytes) || !take_blob(statement, 3, row->max, bytes))
		return refuse(s, layer, row, "it has ranges of other sequences than the job", err);
	if (!take_blob(statement, 6, row->channel_squares, row->channels * sizeof(double)) ||
	    !take_blob(statement, 7, row->channel_absmax, row->channels * sizeof(float)))
		return refuse(s, layer, row, "statistics of its channels are not there", err);
	return are_ranges(row) || refuse(s, layer, row, "what stands there is no range", err);
}

bool mc_statistics_read_site(struct mc_statistics *s, size_t layer, struct mc_site_row *row,
    bool *ret_found, struct mc_error *err)
{
	sqlite3_stmt *statement;

	*ret_found = false;
	if (!mc_statistics_has_sites(s))
		return true;
	if (!mc_db_prepare(s, FIND_SITE, &statement, err))
		return false;
	sqlite3_bind_int64(statement, 1, (sqlite3_int64)layer);
	sqlite3_bind_text(statement, 2, row->site, -1, SQLITE_STATIC);
	mc_db_bind_index(statement, 3, row->expert);
	int step = sqlite3_step(statement);
	bool ok = step == SQLITE_ROW || step == SQLITE_DONE || mc_db_fail(s, err);
	*ret_found = step == SQLITE_ROW;
	ok = ok && (!*ret_found || take_row(s, statement, layer, row, err));
	sqlite3_finalize(statement);
	return ok;
}

static bool take_experts(struct mc_statistics *s, sqlite3_stmt *statement,
    struct mc_coverage_layer *coverage, struct mc_error *err)
{
	size_t count = 0;
	int step;

	while ((step = sqlite3_step(statement)) == SQLITE_ROW && count < coverage->experts &&
	       sqlite3_column_int64(statement, 0) == (sqlite3_int64)count) {
		struct mc_coverage_expert *expert = &coverage->expert[count++];
		expert->routed = (uint64_t)sqlite3_column_int64(statement, 1);
		expert->seen = (uint64_t)sqlite3_column_int64(statement, 2);
		expert->routing_weight = sqlite3_column_double(statement, 3);
		coverage->tokens = (uint64_t)sqlite3_column_int64(statement, 4);
	}
	if (step != SQLITE_ROW && step != SQLITE_DONE)
		return mc_db_fail(s, err);
	return (step == SQLITE_DONE && count == coverage->experts) ||
	       mc_fail(err, MC_CORRUPT, s->path,
		   "layer %zu: the coverage of other experts is there than the %zu of the model",
		   coverage->layer, coverage->experts);
}

bool mc_statistics_read_coverage(
    struct mc_statistics *s, struct mc_coverage_layer *coverage, struct mc_error *err)
{
	sqlite3_stmt *statement;

	if (!mc_db_prepare(s, FIND_EXPERTS, &statement, err))
		return false;
	sqlite3_bind_int64(statement, 1, (sqlite3_int64)coverage->layer);
	bool ok = take_experts(s, statement, coverage, err);
	sqlite3_finalize(statement);
	return ok;
}
