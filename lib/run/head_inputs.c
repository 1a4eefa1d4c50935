/*
 * head_inputs.c - see head_inputs.h
 */
#include "head_inputs.h"

#include "moecal/ops.h"

struct offering {
	const struct mc_head *head;
	const struct mc_batch *batch;
	const float *hidden; /* [T, D] */
	size_t channels;     /* D */
	float *rows;         /* [MC_HEAD_ROWS, D] */
};

/* Shows the normed rows to a tap, as layers show their inputs. */
static bool offer(const struct offering *o, const struct mc_tap *tap, struct mc_error *err)
{
	size_t D = o->channels;

	for (size_t t = 0; t < o->batch->tokens; t += MC_HEAD_ROWS) {
		size_t left = o->batch->tokens - t, n = left < MC_HEAD_ROWS ? left : MC_HEAD_ROWS;
		mc_rms_norm(o->hidden + t * D, D, o->head->norm, o->head->eps, n, D, o->rows, D);
		for (size_t c = 0; c < D; c += MC_TAP_CHANNELS) {
			struct mc_tap_slice slice = {.site = MC_SITE_QKV,
			    .expert = MC_NO_INDEX,
			    .first_channel = c,
			    .channels = D - c < MC_TAP_CHANNELS ? D - c : MC_TAP_CHANNELS,
			    .x = o->rows + c,
			    .ldx = D,
			    .count = n,
			    .first_token = t};
			if (!tap->inputs(tap->ctx, &slice, err))
				return false;
		}
	}
	return true;
}

struct taking {
	struct mc_input_stats *stats;
	const uint64_t *start;
};

static bool take(void *ctx, const struct mc_tap_slice *slice, struct mc_error *err)
{
	struct taking *taking = ctx;
	return mc_input_stats_add(taking->stats, slice, taking->start, err);
}

bool mc_head_observe(const struct mc_job *job, const struct mc_head *head,
    const struct mc_batch *batch, const float *hidden, const struct mc_env *env,
    struct mc_input_stats *stats, struct mc_input_searches *searches, struct mc_error *err)
{
	size_t layers = job->model.config.layers;
	struct offering offering = {
	    .head = head, .batch = batch, .hidden = hidden, .channels = job->model.config.hidden};
	struct taking taking = {.stats = stats, .start = batch->start};
	struct mc_tap tap = {.inputs = take, .ctx = &taking};

	offering.rows = mc_arena_alloc(
	    env->arena, MC_HEAD_ROWS * offering.channels, sizeof(float), "head input", err);
	if (offering.rows == NULL ||
	    !mc_input_stats_init(stats, offering.channels, batch->sequences, env, err) ||
	    !offer(&offering, &tap, err) ||
	    !mc_input_searches_init(searches, job, layers, NULL, stats, batch->start, env, err))
		return false;
	while (mc_input_searches_next(searches)) {
		tap = mc_input_searches_tap(searches);
		if (!offer(&offering, &tap, err))
			return false;
	}
	return true;
}
