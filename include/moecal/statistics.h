/*
 * statistics.h - calibration.db: what was learned, one transaction a layer
 *
 * Tables (strict): run(key, value); layer; expert; module; channel; site - see docs/JOB-FOLDER.md.
 * Rollback journal, so a finished file is one file. A layer's row is the proof that the layer is
 * done.
 */
#ifndef MC_STATISTICS_H
#define MC_STATISTICS_H

#include "moecal/coverage.h"
#include "moecal/json.h"

struct mc_statistics; /* an open calibration.db */

/*
 * What was seen at one place where inputs are offered, so that other schemes can be folded from it:
 * the range of every sequence, `ranges` of them one after another (1, or one a head), +inf and -inf
 * where a sequence had no token there.
 */
struct mc_site_row {
	const char *site; /* "qkv", "o", "gate_up", "expert_gate_up", "down", "query", "key",
			   * "value", "head" */
	size_t expert;    /* MC_NO_INDEX -> NULL */
	size_t channels, sequences, ranges;
	uint64_t tokens;         /* rows seen */
	float *min, *max;        /* [ranges, sequences] */
	double sum, sum_squares; /* over all channels */
	double *channel_squares; /* [channels]: sums of squares; NULL: not kept */
	float *channel_absmax;   /* [channels]; NULL: not kept */
};
struct mc_layer_row {
	size_t index;
	const char *name;
	uint64_t tokens;
	double seconds, flops;
	const struct mc_site_row *sites;
	size_t sites_count;
};
struct mc_module_row {
	const char *name;
	size_t layer, expert; /* MC_NO_INDEX -> NULL */
	const char *role, *scheme, *algorithm, *source;
	size_t rows, cols;
	double error_relative;
	bool has_input; /* input_* are NULL otherwise */
	double input_min, input_max, input_absmax, input_mean, input_var;
	double weight_absmax, scale_min, scale_max;
	const float *channel_absmax, *channel_mean_square; /* [cols] or NULL: not kept */
};

/* Creates the file and its tables, or opens an existing one (read_only: must exist). A file of
 * version 1, which has no sites, can only be read (else CONFLICT). Errors: UNSUPPORTED (another
 * version), CORRUPT, IO ... */
struct mc_statistics *mc_statistics_open(
    const char *path, bool read_only, struct mc_error *err) MC_CHECKED;
void mc_statistics_close(struct mc_statistics *statistics);

bool mc_statistics_set(struct mc_statistics *statistics, const char *key, const char *value,
    struct mc_error *err) MC_CHECKED;
/* NULL when absent; owned by the caller: free(). */
bool mc_statistics_get(struct mc_statistics *statistics, const char *key, char **ret_value,
    struct mc_error *err) MC_CHECKED;

/* One layer in one transaction. coverage may be NULL (dense layer, or no data). source names where
 * the experts learned from: "all-tokens", "measured", "weights-only", one an expert, or NULL. */
bool mc_statistics_add_layer(struct mc_statistics *statistics, const struct mc_layer_row *layer,
    const struct mc_coverage_layer *coverage, const char *const *expert_source,
    const struct mc_module_row *modules, size_t modules_count, struct mc_error *err) MC_CHECKED;
/* Whether the file can hold sites: version 2 and later. */
bool mc_statistics_has_sites(const struct mc_statistics *statistics);
/* Fills the arrays of `row`, whose site, expert, channels, sequences and ranges say what is looked
 * for, its tokens and sums. A channel_* array that is NULL is passed over. *ret_found false: there
 * is no such row. Errors: CORRUPT when it has another shape, lacks a channel_* array that is asked
 * for, or holds what no range can be. */
bool mc_statistics_read_site(struct mc_statistics *statistics, size_t layer,
    struct mc_site_row *row, bool *ret_found, struct mc_error *err) MC_CHECKED;
/* Fills the counts of a layer with as many experts. Errors: CORRUPT when there are others. */
bool mc_statistics_read_coverage(struct mc_statistics *statistics,
    struct mc_coverage_layer *coverage, struct mc_error *err) MC_CHECKED;
/* Layers done: 0..n-1 -> n. */
bool mc_statistics_layers_done(
    struct mc_statistics *statistics, size_t *ret_layers, struct mc_error *err) MC_CHECKED;
/* Forgets layers >= first (a resume that found their files missing). */
bool mc_statistics_forget(
    struct mc_statistics *statistics, size_t first, struct mc_error *err) MC_CHECKED;

/* {"layers": [{index, name, tokens, min, median, gini, starved, experts: [{expert, routed, seen,
 * weight, share, source}]}], "starved_total", "floor_tokens"}: the coverage document of the API.
 * New, owned. */
struct mc_json *mc_statistics_coverage_json(
    struct mc_statistics *statistics, uint64_t floor_tokens, struct mc_error *err) MC_CHECKED;
struct mc_module_filter {
	size_t layer, expert; /* MC_NO_INDEX: all */
	const char *prefix;   /* of the name; NULL: all */
	uint64_t skip, limit; /* rows; limit 0: all */
};
/* Module rows in the order they were added, which never changes, as an array of objects. */
struct mc_json *mc_statistics_modules_json(struct mc_statistics *statistics,
    const struct mc_module_filter *filter, struct mc_error *err) MC_CHECKED;
/* Seconds and flops per layer, for the manifest. New, owned array. */
struct mc_json *mc_statistics_layers_json(
    struct mc_statistics *statistics, struct mc_error *err) MC_CHECKED;

/* Version of SQLite; static storage. */
const char *mc_statistics_library(void);

#endif
