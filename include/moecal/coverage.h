/*
 * coverage.h - which experts the text reaches
 */
#ifndef MC_COVERAGE_H
#define MC_COVERAGE_H

#include "moecal/env.h"
#include "moecal/tap.h"

struct mc_coverage_expert {
	uint64_t routed;       /* tokens that the router sent here */
	uint64_t seen;         /* tokens that the expert learned from */
	double routing_weight; /* sum of its routing weights */
};

struct mc_coverage_layer {
	size_t layer;    /* index in the model */
	uint64_t tokens;
	size_t experts, k;
	struct mc_coverage_expert *expert; /* [experts]; owned */
};

struct mc_coverage {
	size_t count; /* MoE layers seen so far */
	size_t capacity;
	struct mc_coverage_layer *layers; /* owned; in model order */
};

/* An expert is starved when routing alone gives it fewer than floor tokens (floor >= 1). */
struct mc_coverage_summary {
	uint64_t min, median, max; /* of routed */
	double gini;               /* of routed: 0 even, towards 1 all to one */
	size_t starved;
	/* More tokens of this data that would bring the poorest expert to the floor, by its share so far;
	 * 0: it is there; UINT64_MAX: cannot be said, because it got none. */
	uint64_t tokens_to_floor;
};

void mc_coverage_init(struct mc_coverage *coverage);
void mc_coverage_release(struct mc_coverage *coverage);
/* A new layer, zeroed; the pointer is good until the next call. */
bool mc_coverage_layer_new(struct mc_coverage *coverage, size_t layer, size_t experts, size_t k,
    struct mc_coverage_layer **ret, struct mc_error *err) MC_CHECKED;
/* Counts the router's choice. Errors: INTERNAL when an index is out of range. */
bool mc_coverage_add(struct mc_coverage_layer *layer, const struct mc_tap_routing *routing,
    struct mc_error *err) MC_CHECKED;
/* share of expert e: routed / (tokens * k); 0 when nothing was counted */
double mc_coverage_share(const struct mc_coverage_layer *layer, size_t expert);
bool mc_coverage_summarise(const struct mc_coverage_layer *layer, uint64_t floor,
    struct mc_coverage_summary *ret, struct mc_error *err) MC_CHECKED;
bool mc_coverage_is_starved(const struct mc_coverage_layer *layer, size_t expert, uint64_t floor);

#endif
