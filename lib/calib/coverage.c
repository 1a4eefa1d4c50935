/*
 * coverage.c - which experts the text reaches
 */
#include "moecal/coverage.h"

#include <stdlib.h>
#include <string.h>

#include "moecal/alloc.h"

void mc_coverage_init(struct mc_coverage *coverage)
{
	*coverage = (struct mc_coverage){0};
}

void mc_coverage_release(struct mc_coverage *coverage)
{
	for (size_t i = 0; i < coverage->count; i++)
		free(coverage->layers[i].expert);
	free(coverage->layers);
	mc_coverage_init(coverage);
}

bool mc_coverage_layer_new(struct mc_coverage *coverage, size_t layer, size_t experts, size_t k,
    struct mc_coverage_layer **ret, struct mc_error *err)
{
	struct mc_coverage_layer *added;

	if (coverage->count > 0 && coverage->layers[coverage->count - 1].layer >= layer)
		return mc_fail(err, MC_CONFLICT, "coverage",
		    "layer %zu cannot follow layer %zu: layers are counted once and in model order",
		    layer, coverage->layers[coverage->count - 1].layer);
	if (!mc_grow((void **)&coverage->layers, &coverage->capacity, coverage->count + 1,
		sizeof *coverage->layers, "coverage", err))
		return false;
	added = &coverage->layers[coverage->count];
	*added = (struct mc_coverage_layer){.layer = layer, .experts = experts, .k = k};
	added->expert = mc_alloc(experts, sizeof *added->expert, "coverage of a layer", err);
	if (added->expert == NULL)
		return false;
	coverage->count++;
	*ret = added;
	return true;
}

bool mc_coverage_add(
    struct mc_coverage_layer *layer, const struct mc_tap_routing *routing, struct mc_error *err)
{
	size_t pairs = routing->tokens * routing->k;

	if (routing->k != layer->k || routing->experts != layer->experts)
		return mc_fail(err, MC_INTERNAL, "coverage",
		    "layer %zu has %zu experts, %zu for each token, but was given a choice of %zu "
		    "of %zu",
		    layer->layer, layer->experts, layer->k, routing->k, routing->experts);
	/* Nothing is counted of a choice that is wrong somewhere. */
	for (size_t i = 0; i < pairs; i++)
		if (routing->index[i] >= layer->experts)
			return mc_fail(err, MC_INTERNAL, "coverage",
			    "layer %zu, token %zu: the router chose expert %u of %zu", layer->layer,
			    routing->first_token + i / routing->k, routing->index[i],
			    layer->experts);
	for (size_t i = 0; i < pairs; i++) {
		struct mc_coverage_expert *expert = &layer->expert[routing->index[i]];
		expert->routed++;
		expert->routing_weight += (double)routing->weight[i];
	}
	layer->tokens += routing->tokens;
	return true;
}

double mc_coverage_share(const struct mc_coverage_layer *layer, size_t expert)
{
	double pairs = (double)layer->tokens * (double)layer->k;

	return pairs > 0 ? (double)layer->expert[expert].routed / pairs : 0;
}

bool mc_coverage_is_starved(const struct mc_coverage_layer *layer, size_t expert, uint64_t floor)
{
	return layer->expert[expert].routed < floor;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x, y;

	memcpy(&x, a, sizeof x);
	memcpy(&y, b, sizeof y);
	return (x > y) - (x < y);
}

/*
 * With x sorted ascending and i from 1: sum of (2i - n - 1) x_i over n * sum of x_i. It is 0 when
 * all are equal and (n - 1) / n when one has everything; 0 when there is nothing to share.
 */
static double gini(const uint64_t *x, size_t n)
{
	double weighted = 0, sum = 0;

	for (size_t i = 0; i < n; i++) {
		weighted += (2.0 * (double)i + 1.0 - (double)n) * (double)x[i];
		sum += (double)x[i];
	}
	return sum > 0 ? weighted / ((double)n * sum) : 0;
}

/* ceil((floor - routed) / (routed / tokens)) in whole numbers; past 2^64: cannot be said */
static uint64_t tokens_to_floor(uint64_t routed, uint64_t tokens, uint64_t floor)
{
	uint64_t product;

	if (routed >= floor)
		return 0;
	if (routed == 0 || !mc_mul(floor - routed, tokens, &product))
		return UINT64_MAX;
	return product / routed + (product % routed != 0);
}

bool mc_coverage_summarise(const struct mc_coverage_layer *layer, uint64_t floor,
    struct mc_coverage_summary *ret, struct mc_error *err)
{
	size_t n = layer->experts;
	uint64_t *sorted;

	*ret = (struct mc_coverage_summary){0};
	if (n == 0)
		return true;
	sorted = mc_alloc(n, sizeof *sorted, "coverage summary", err);
	if (sorted == NULL)
		return false;
	for (size_t e = 0; e < n; e++) {
		sorted[e] = layer->expert[e].routed;
		ret->starved += mc_coverage_is_starved(layer, e, floor);
	}
	qsort(sorted, n, sizeof *sorted, ascending);

	uint64_t low = sorted[(n - 1) / 2], high = sorted[n / 2];
	ret->min = sorted[0];
	ret->median =
	    low + (high - low) / 2; /* of the two in the middle when n is even, rounded down */
	ret->max = sorted[n - 1];
	ret->gini = gini(sorted, n);
	ret->tokens_to_floor = tokens_to_floor(sorted[0], layer->tokens, floor);
	free(sorted);
	return true;
}
