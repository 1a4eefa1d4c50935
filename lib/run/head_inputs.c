/*
 * head_inputs.c - see head_inputs.h
 */
#include "head_inputs.h"

#include "moecal/ops.h"

#define HEAD_ROWS 1024 /* tokens of the head's input that are normed at a time */

struct head_inputs {
	const struct mc_batch *batch;
	const float *hidden; /* [T, D] */
	const struct mc_head *head;
	size_t width; /* D */
	float *rows;  /* [HEAD_ROWS, D]: scratch */
	struct mc_input_stats *stats;
};

/* Offers the head's inputs, HEAD_ROWS tokens at a time. */
static bool offer_head(const struct head_inputs *in, const struct mc_tap *tap, struct mc_error *err)
{
	size_t D = in->width;

	for (size_t t = 0; t < in->batch->tokens; t += HEAD_ROWS) {
		size_t left = in->batch->tokens - t, n = left < HEAD_ROWS ? left : HEAD_ROWS;
		mc_rms_norm(
		    in->hidden + t * D, D, in->head->norm, in->head->eps, n, D, in->rows, D);
		for (size_t c = 0; c < D; c += MC_TAP_CHANNELS) {
			struct mc_tap_slice slice = {.site = MC_SITE_QKV,
			    .expert = MC_NO_INDEX,
			    .first_channel = c,
			    .channels = D - c < MC_TAP_CHANNELS ? D - c : MC_TAP_CHANNELS,
			    .x = in->rows + c,
			    .ldx = D,
			    .count = n,
			    .first_token = t};
			if (!tap->inputs(tap->ctx, &slice, err))
				return false;
		}
	}
	return true;
}

static bool take_head(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	const struct head_inputs *in = ctx;

	return mc_input_stats_add(in->stats, slice, in->batch->start, err);
}

bool mc_observe_head(const struct mc_job *job, const struct mc_batch *batch, const float *hidden,
    const struct mc_head *head, struct mc_input_stats *stats, struct mc_input_searches *searches,
    const struct mc_env *env, struct mc_error *err)
{
	struct head_inputs in = {.batch = batch,
	    .hidden = hidden,
	    .head = head,
	    .width = job->model.config.hidden,
	    .stats = stats};
	struct mc_tap tap = {.inputs = take_head, .ctx = &in};

	in.rows = mc_arena_alloc(
	    env->arena, HEAD_ROWS * in.width, sizeof *in.rows, "head input", err);
	if (in.rows == NULL || !offer_head(&in, &tap, err) ||
	    !mc_input_searches_init(
		searches, job, job->model.config.layers, NULL, stats, batch->start, env, err))
		return false;
	while (mc_input_searches_next(searches)) {
		tap = mc_input_searches_tap(searches);
		if (!offer_head(&in, &tap, err))
			return false;
	}
	return true;
}
