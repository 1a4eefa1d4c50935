/*
 * sites.h - a layer's statistics as sites of calibration.db, and back
 */
#ifndef MC_RUN_SITES_H
#define MC_RUN_SITES_H

#include "moecal/job.h"
#include "moecal/observer.h"
#include "moecal/statistics.h"

struct mc_site_rows {
	size_t count;
	struct mc_site_row *items; /* owned; what they point at is the observer's */
};

/* What the layer's observer has seen; channels: with what is kept of each channel. Gathers and
 * packs the ranges of the observer, so it comes when nothing is folded any more. Errors: NO_MEMORY.
 */
bool mc_sites_of_layer(struct mc_layer_observer *observer, bool channels, struct mc_site_rows *ret,
    struct mc_error *err) MC_CHECKED;
/* The same of the head's inputs. */
bool mc_sites_of_head(struct mc_input_stats *stats, bool channels, struct mc_site_rows *ret,
    struct mc_error *err) MC_CHECKED;
/* Bytes that a layer's sites take on disk, about. */
uint64_t mc_sites_bytes(const struct mc_job *job, size_t layer);
void mc_sites_release(struct mc_site_rows *rows);

/* Fills a layer's observer, which has seen nothing, with what was kept: every fold over it gives
 * what it gave then, bit by bit. Without channels only sums over all channels are right. Errors:
 * CORRUPT when a site is absent or of another shape. */
bool mc_sites_recall(struct mc_layer_observer *observer, struct mc_statistics *statistics,
    bool channels, struct mc_error *err) MC_CHECKED;
/* The same of the head's inputs; layer: the number of layers. *ret_found false: not kept. */
bool mc_sites_recall_head(struct mc_input_stats *stats, struct mc_statistics *statistics,
    size_t layer, bool channels, bool *ret_found, struct mc_error *err) MC_CHECKED;

#endif
