/*
 * tap.h - forward offers every linear's inputs, and what attention works on, to whoever listens; it
 * knows nothing of statistics
 *
 * Inputs are offered in slices of channels, so that listening is parallel and sums stay in token
 * order: for one (site, expert, first_channel) the calls come one after another, rows in ascending
 * token order; different slices may come at once from different workers. Slices begin at multiples
 * of MC_TAP_CHANNELS and are that long, the last one shorter.
 */
#ifndef MC_TAP_H
#define MC_TAP_H

#include <stddef.h>
#include <stdint.h>

#include "moecal/error.h"

#define MC_TAP_CHANNELS 512u

enum mc_site {
	MC_SITE_QKV,     /* input of q, k, v; D channels */
	MC_SITE_O,       /* input of o; heads * head_dim channels */
	MC_SITE_GATE_UP, /* input of gate and up, all tokens, once for all experts; D */
	MC_SITE_EXPERT_GATE_UP, /* routed mode only: besides, the same for one expert's tokens; D */
	MC_SITE_DOWN, /* input of down: of an expert, of the dense MLP (expert MC_NO_INDEX); F */
	/* What enters attention, head after head, never with `rows`: q and k after their norm and
	 * rotation, k and v as they enter the cache. */
	MC_SITE_QUERY, /* heads * head_dim channels */
	MC_SITE_KEY,   /* kv_heads * head_dim */
	MC_SITE_VALUE, /* kv_heads * head_dim */
	MC_SITE_COUNT
};

/* A slice of input rows. Row i stands at x + (rows ? rows[i] : i) * ldx and belongs to token
 * first_token + (rows ? rows[i] : i). */
struct mc_tap_slice {
	enum mc_site site;
	size_t expert; /* MC_NO_INDEX unless the site is one expert's */
	size_t first_channel, channels;
	const float *x; /* at first_channel already */
	size_t ldx;
	const uint32_t *rows; /* or NULL: all of 0..count-1; ascending */
	size_t count;
	size_t first_token;
	unsigned worker;
};

/* The router's choice for tokens first_token..first_token+tokens-1; index, weight [tokens, K].
 * Calls come from the calling thread in token order. */
struct mc_tap_routing {
	size_t first_token, tokens, k, experts;
	const uint32_t *index;
	const float *weight;
};

struct mc_tap {
	bool (*inputs)(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err);
	bool (*routing)(
	    void *ctx, const struct mc_tap_routing *routing, struct mc_error *err); /* or NULL */
	void *ctx;
};

#endif
