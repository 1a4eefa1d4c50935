/*
 * tap_recorder.h - a tap that writes down what it is shown, and the check of that against the
 * definition
 */
#ifndef MC_UNIT_TAP_RECORDER_H
#define MC_UNIT_TAP_RECORDER_H

#include <stdatomic.h>

#include "forward_setting.h"

/* One slice of one site of one expert. */
struct shown {
	size_t channels, rows;
	size_t next; /* lowest token that may come */
	float *x;    /* [T, channels], rows at their tokens */
	bool *seen;  /* [T] */
};

struct recorder {
	size_t tokens, experts, k;
	struct shown *shown; /* [site][experts + 1][slice]; the last expert is the layer */
	size_t slices;
	uint32_t *index;
	float *weight;
	size_t routed;
	atomic_int wrong; /* broken promises; counted, as a worker must not leave the test */
};

static inline struct shown *shown_at(
    const struct recorder *r, enum mc_site site, size_t expert, size_t slice)
{
	size_t row = expert == MC_NO_INDEX ? r->experts : expert;

	return &r->shown[((size_t)site * (r->experts + 1) + row) * r->slices + slice];
}

static inline bool record_inputs(void *ctx, const struct mc_tap_slice *slice, struct mc_error *e)
{
	struct recorder *r = ctx;
	bool bad = slice->first_channel % MC_TAP_CHANNELS != 0 || slice->channels == 0 ||
		   slice->channels > MC_TAP_CHANNELS || slice->count == 0;

	(void)e;
	if (bad || slice->first_channel / MC_TAP_CHANNELS >= r->slices) {
		r->wrong++;
		return true;
	}
	struct shown *s = shown_at(
	    r, slice->site, slice->expert, slice->first_channel / MC_TAP_CHANNELS);
	if (s->x == NULL) {
		s->channels = slice->channels;
		s->x = calloc(r->tokens * s->channels, sizeof *s->x);
		s->seen = calloc(r->tokens, sizeof *s->seen);
	}
	r->wrong += s->channels != slice->channels;
	for (size_t i = 0; i < slice->count; i++) {
		size_t row = slice->rows != NULL ? slice->rows[i] : i,
		       token = slice->first_token + row;
		if (token < s->next || token >= r->tokens) {
			r->wrong++;
			return true;
		}
		s->next = token + 1;
		s->seen[token] = true;
		s->rows++;
		memcpy(s->x + token * s->channels, slice->x + row * slice->ldx,
		    s->channels * sizeof *s->x);
	}
	return true;
}

static inline bool record_routing(
    void *ctx, const struct mc_tap_routing *routing, struct mc_error *e)
{
	struct recorder *r = ctx;

	(void)e;
	assert_int_equal(routing->first_token, r->routed);
	assert_int_equal(routing->k, r->k);
	assert_int_equal(routing->experts, r->experts);
	memcpy(
	    r->index + r->routed * r->k, routing->index, routing->tokens * r->k * sizeof *r->index);
	memcpy(r->weight + r->routed * r->k, routing->weight,
	    routing->tokens * r->k * sizeof *r->weight);
	r->routed += routing->tokens;
	return true;
}

static inline struct mc_tap recorder_init(struct recorder *r, const struct setting *s)
{
	const struct mc_model_config *c = &s->hand.model.config;

	*r = (struct recorder){.tokens = s->batch.tokens,
	    .experts = c->experts,
	    .k = c->experts_per_token,
	    .slices = 2};
	r->shown = calloc(MC_SITE_COUNT * (r->experts + 1) * r->slices, sizeof *r->shown);
	r->index = calloc(r->tokens * r->k + 1, sizeof *r->index);
	r->weight = calloc(r->tokens * r->k + 1, sizeof *r->weight);
	assert_true(r->shown != NULL && r->index != NULL && r->weight != NULL);
	return (struct mc_tap){.inputs = record_inputs, .routing = record_routing, .ctx = r};
}

static inline void recorder_release(struct recorder *r)
{
	for (size_t i = 0; i < MC_SITE_COUNT * (r->experts + 1) * r->slices; i++) {
		free(r->shown[i].x);
		free(r->shown[i].seen);
	}
	free(r->shown);
	free(r->index);
	free(r->weight);
}

/* The slices of a site hold exactly the chosen rows of expected [T, width]; only_of: of this
 * expert's tokens alone, MC_NO_INDEX: all of them. */
static inline void check_shown(const struct recorder *r, enum mc_site site, size_t expert,
    const double *expected, size_t width, const struct ref_layer_inputs *in, size_t only_of)
{
	double difference = 0, square = 0;

	for (size_t slice = 0; slice * MC_TAP_CHANNELS < width; slice++) {
		const struct shown *s = shown_at(r, site, expert, slice);
		size_t first = slice * MC_TAP_CHANNELS, count = 0;
		for (size_t t = 0; t < r->tokens; t++) {
			bool wanted = only_of == MC_NO_INDEX || ref_is_routed(in, t, only_of);
			count += wanted;
			assert_int_equal(s->seen != NULL && s->seen[t], wanted);
			for (size_t c = 0; wanted && c < s->channels; c++) {
				double e = expected[t * width + first + c];
				double d = (double)s->x[t * s->channels + c] - e;
				difference += d * d;
				square += e * e;
			}
		}
		assert_int_equal(s->rows, count);
		if (count > 0)
			assert_int_equal(s->channels,
			    width - first < MC_TAP_CHANNELS ? width - first : MC_TAP_CHANNELS);
	}
	assert_true(difference <= 1e-10 * square);
}

static inline bool was_shown(const struct recorder *r, enum mc_site site, size_t expert)
{
	return shown_at(r, site, expert, 0)->rows > 0;
}

#endif
