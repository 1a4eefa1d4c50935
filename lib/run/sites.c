/*
 * sites.c - see sites.h
 */
#include "sites.h"

#include <stdlib.h>

#include "moecal/alloc.h"

#define HEAD_SITE "head"

/* One place of a layer: statistics of a linear's input, or ranges of attention's heads. */
struct place {
	const char *site;
	size_t expert;
	struct mc_input_stats *stats;
	struct mc_head_ranges *heads;
};

/* All places of a layer in an order that never changes; list NULL: only their number. */
static size_t places_of(const struct mc_layer_observer *from, struct place *list)
{
	struct mc_layer_observer *o = (struct mc_layer_observer *)
	    from; /* its arrays are not const */
	const struct place fixed[] = {{"qkv", MC_NO_INDEX, &o->qkv, NULL},
	    {"o", MC_NO_INDEX, &o->o, NULL}, {"gate_up", MC_NO_INDEX, &o->gate_up, NULL},
	    {"down", MC_NO_INDEX, o->experts == 0 ? &o->dense_down : NULL, NULL},
	    {"query", MC_NO_INDEX, NULL, o->query}, {"key", MC_NO_INDEX, NULL, o->key},
	    {"value", MC_NO_INDEX, NULL, o->value}};
	size_t count = 0;

	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) {
		if (fixed[i].stats == NULL && fixed[i].heads == NULL)
			continue;
		if (list != NULL)
			list[count] = fixed[i];
		count++;
	}
	for (size_t e = 0; e < o->experts; e++) {
		if (list != NULL && o->expert_gate_up != NULL)
			list[count] = (struct place){
			    "expert_gate_up", e, &o->expert_gate_up[e], NULL};
		count += o->expert_gate_up != NULL;
		if (list != NULL)
			list[count] = (struct place){"down", e, &o->expert_down[e], NULL};
		count++;
	}
	return count;
}

static struct mc_site_row row_of(const struct place *place, bool channels)
{
	struct mc_site_row row = {.site = place->site, .expert = place->expert, .ranges = 1};

	if (place->heads != NULL) {
		row.channels = place->heads->heads * place->heads->head_dim;
		row.sequences = place->heads->sequences;
		row.ranges = place->heads->heads;
		row.min = place->heads->min;
		row.max = place->heads->max;
		return row;
	}
	row.channels = place->stats->channels;
	row.sequences = place->stats->sequences;
	row.min = place->stats->slice_min;
	row.max = place->stats->slice_max;
	row.channel_squares = channels ? place->stats->sum_squares : NULL;
	row.channel_absmax = channels ? place->stats->absmax : NULL;
	return row;
}

/* --- to rows ---------------------------------------------------------------------------------- */

static void fill_row(struct mc_site_row *row, const struct place *place, bool channels)
{
	struct mc_input_stats *stats = place->stats;

	if (place->heads != NULL)
		mc_head_ranges_pack(place->heads);
	else
		mc_input_stats_gather(stats);
	*row = row_of(place, channels);
	if (stats == NULL)
		return;
	row->tokens = stats->tokens;
	for (size_t c = 0; c < stats->channels; c++) { /* in the order of the moments */
		row->sum += stats->sum[c];
		row->sum_squares += stats->sum_squares[c];
	}
}

static bool to_rows(const struct place *places, size_t count, bool channels,
    struct mc_site_rows *ret, struct mc_error *err)
{
	*ret = (struct mc_site_rows){
	    .items = mc_alloc(count, sizeof *ret->items, "rows of sites", err)};
	if (ret->items == NULL)
		return false;
	for (; ret->count < count; ret->count++)
		fill_row(&ret->items[ret->count], &places[ret->count], channels);
	return true;
}

bool mc_sites_of_layer(struct mc_layer_observer *observer, bool channels, struct mc_site_rows *ret,
    struct mc_error *err)
{
	size_t count = places_of(observer, NULL);
	struct place *places = mc_alloc(count, sizeof *places, "sites of a layer", err);

	if (places == NULL)
		return false;
	(void)places_of(observer, places);
	bool ok = to_rows(places, count, channels, ret, err);
	free(places);
	return ok;
}

bool mc_sites_of_head(
    struct mc_input_stats *stats, bool channels, struct mc_site_rows *ret, struct mc_error *err)
{
	const struct place place = {HEAD_SITE, MC_NO_INDEX, stats, NULL};

	return to_rows(&place, 1, channels, ret, err);
}

uint64_t mc_sites_bytes(const struct mc_job *job, size_t layer)
{
	const struct mc_model_config *config = &job->model.config;
	bool moe = job->model.layers[layer].moe != MC_NO_INDEX, all = mc_job_sees_all(job);
	uint64_t experts = moe ? config->experts : 1, sites = all || !moe ? experts : 2 * experts;
	uint64_t heads = config->heads + 2 * config->kv_heads, channels = 0;

	if (job->spec->keep_statistics == MC_KEEP_CHANNELS)
		channels = 2 * config->hidden + config->heads * config->head_dim +
			   experts * (moe ? config->expert_intermediate : config->intermediate) +
			   (sites - experts) * config->hidden;
	return (sites + 3 + heads) * (job->dataset.sequences * 2 * sizeof(float) + 64) +
	       channels * (sizeof(double) + sizeof(float));
}

void mc_sites_release(struct mc_site_rows *rows)
{
	free(rows->items);
	*rows = (struct mc_site_rows){0};
}

/* --- from rows -------------------------------------------------------------------------------- */

static bool recall(const struct place *place, struct mc_statistics *statistics, size_t layer,
    bool channels, bool *ret_found, struct mc_error *err)
{
	struct mc_site_row row = row_of(place, channels);
	struct mc_input_stats *stats = place->stats;

	if (!mc_statistics_read_site(statistics, layer, &row, ret_found, err))
		return false;
	if (!*ret_found)
		return true;
	if (place->heads != NULL) {
		mc_head_ranges_unpack(place->heads);
		return true;
	}
	stats->tokens = row.tokens;
	for (size_t s = 0; s < stats->slices; s++)
		stats->slice_rows[s] = row.tokens;
	/* moments need sums over all channels, wherever they stand */
	stats->sum[0] = row.sum;
	if (!channels)
		stats->sum_squares[0] = row.sum_squares;
	return true;
}

bool mc_sites_recall(struct mc_layer_observer *observer, struct mc_statistics *statistics,
    bool channels, struct mc_error *err)
{
	size_t count = places_of(observer, NULL);
	struct place *places = mc_alloc(count, sizeof *places, "sites of a layer", err);
	bool ok = places != NULL, found;

	if (ok)
		(void)places_of(observer, places);
	for (size_t i = 0; ok && i < count; i++) {
		ok = recall(&places[i], statistics, observer->layer, channels, &found, err);
		if (ok && !found)
			ok = mc_fail(err, MC_CORRUPT, "calibration.db",
			    "layer %zu has no site %s%s", observer->layer, places[i].site,
			    places[i].expert == MC_NO_INDEX ? "" : " of one of its experts");
	}
	free(places);
	return ok;
}

bool mc_sites_recall_head(struct mc_input_stats *stats, struct mc_statistics *statistics,
    size_t layer, bool channels, bool *ret_found, struct mc_error *err)
{
	const struct place place = {HEAD_SITE, MC_NO_INDEX, stats, NULL};

	return recall(&place, statistics, layer, channels, ret_found, err);
}
