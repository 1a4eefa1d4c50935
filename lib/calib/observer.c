/*
 * observer.c - statistics of one site's inputs and the observers that fold them
 *
 * A slice of channels owns its part of every array, so workers on different slices never meet;
 * within a slice everything is added in token order. So no lock, and the same bits for any number
 * of workers.
 */
#include "moecal/observer.h"

#include <math.h>
#include <stdint.h>

#include "moecal/alloc.h"
#include "moecal/ops.h"

#include "name.h"
#include "sequence.h"

static const struct {
	const char *name;
	enum mc_observer_kind kind;
} observers[] = {
    {"memoryless-minmax", MC_OBSERVER_MEMORYLESS},
    {"static-minmax", MC_OBSERVER_STATIC},
    {"minmax", MC_OBSERVER_MOVING},
};

bool mc_observer_find(const char *name, enum mc_observer_kind *ret_kind)
{
	for (size_t i = 0; i < sizeof observers / sizeof observers[0]; i++)
		if (mc_name_same(observers[i].name, name)) {
			*ret_kind = observers[i].kind;
			return true;
		}
	return false;
}

/* --- what is kept ----------------------------------------------------------------------------- */

static size_t slices_of(size_t channels)
{
	return channels / MC_TAP_CHANNELS + (channels % MC_TAP_CHANNELS != 0);
}

/* A site without channels or sequences still has its arrays. */
static uint64_t some(uint64_t count)
{
	return count > 0 ? count : 1;
}

bool mc_input_stats_init(struct mc_input_stats *stats, size_t channels, size_t sequences,
    const struct mc_env *env, struct mc_error *err)
{
	size_t slices = slices_of(channels);
	uint64_t ranges;

	*stats =
	    (struct mc_input_stats){.channels = channels, .sequences = sequences, .slices = slices};
	if (!mc_mul(slices, sequences, &ranges))
		return mc_fail(err, MC_NO_MEMORY, "input statistics",
		    "%zu slices of %zu sequences are more than can be counted", slices, sequences);
	stats->slice_min =
	    mc_arena_alloc(env->arena, some(ranges), sizeof(float), "input ranges", err);
	stats->slice_max =
	    mc_arena_alloc(env->arena, some(ranges), sizeof(float), "input ranges", err);
	stats->slice_rows =
	    mc_arena_zalloc(env->arena, some(slices), sizeof(uint64_t), "input counts", err);
	stats->sum = mc_arena_zalloc(env->arena, some(channels), sizeof(double), "input sums", err);
	stats->sum_squares =
	    mc_arena_zalloc(env->arena, some(channels), sizeof(double), "input squares", err);
	stats->absmax =
	    mc_arena_zalloc(env->arena, some(channels), sizeof(float), "input maxima", err);
	if (stats->slice_min == NULL || stats->slice_max == NULL || stats->slice_rows == NULL ||
	    stats->sum == NULL || stats->sum_squares == NULL || stats->absmax == NULL)
		return false;
	for (uint64_t i = 0; i < ranges; i++) {
		stats->slice_min[i] = INFINITY;
		stats->slice_max[i] = -INFINITY;
	}
	return true;
}

static uint64_t arena_bytes(uint64_t count, uint64_t size)
{
	uint64_t bytes;

	return mc_mul(some(count), size, &bytes) && bytes <= UINT64_MAX - 63
		   ? (bytes + 63) / 64 * 64
		   : UINT64_MAX;
}

static uint64_t total(uint64_t a, uint64_t b)
{
	uint64_t sum;

	return mc_add(a, b, &sum) ? sum : UINT64_MAX;
}

uint64_t mc_input_stats_bytes(size_t channels, size_t sequences)
{
	size_t slices = slices_of(channels);
	uint64_t ranges;

	if (!mc_mul(slices, sequences, &ranges))
		return UINT64_MAX;
	uint64_t range_bytes = arena_bytes(ranges, sizeof(float));
	uint64_t sum_bytes = arena_bytes(channels, sizeof(double));
	return total(total(total(range_bytes, range_bytes), total(sum_bytes, sum_bytes)),
	    total(arena_bytes(slices, sizeof(uint64_t)), arena_bytes(channels, sizeof(float))));
}

/* --- adding ----------------------------------------------------------------------------------- */

static uint64_t token_of(const struct mc_tap_slice *slice, size_t i)
{
	return (uint64_t)slice->first_token + (slice->rows != NULL ? slice->rows[i] : i);
}

/* Rows [from, ret) belong to the sequence that ends before token `end`. */
static size_t rows_before(const struct mc_tap_slice *slice, size_t from, uint64_t end)
{
	size_t i = from;

	if (slice->rows == NULL) {
		uint64_t left = end - token_of(slice, from);
		return left < slice->count - from ? from + (size_t)left : slice->count;
	}
	while (i < slice->count && token_of(slice, i) < end)
		i++;
	return i;
}

/* A value that is not finite, by token and channel; the statistics are of no use afterwards. */
static bool refuse(const struct mc_tap_slice *slice, size_t from, size_t to, struct mc_error *err)
{
	for (size_t i = from; i < to; i++) {
		const float *row =
		    slice->x + (slice->rows != NULL ? slice->rows[i] : i) * slice->ldx;
		for (size_t c = 0; c < slice->channels; c++)
			if (!mc_all_finite(row + c, 1))
				return mc_fail(err, MC_CORRUPT, "input statistics",
				    "token %llu, channel %zu is %g; every input of a linear must "
				    "be finite",
				    (unsigned long long)token_of(slice, i),
				    slice->first_channel + c, (double)row[c]);
	}
	return mc_fail(
	    err, MC_INTERNAL, "input statistics", "the range of finite inputs is not finite");
}

bool mc_input_stats_add(struct mc_input_stats *stats, const struct mc_tap_slice *slice,
    const uint64_t *start, struct mc_error *err)
{
	size_t first = slice->first_channel, number = first / MC_TAP_CHANNELS, end;

	mc_assert(first % MC_TAP_CHANNELS == 0 && first < stats->channels &&
		  slice->channels <= MC_TAP_CHANNELS && slice->channels <= stats->channels - first);
	for (size_t i = 0; i < slice->count; i = end) {
		size_t sequence = mc_sequence_of(start, stats->sequences, token_of(slice, i));
		float *min = &stats->slice_min[number * stats->sequences + sequence];
		float *max = &stats->slice_max[number * stats->sequences + sequence];

		end = rows_before(slice, i, start[sequence + 1]);
		mc_block_stats_add(slice->rows != NULL ? slice->x : slice->x + i * slice->ldx,
		    slice->ldx, slice->rows != NULL ? slice->rows + i : NULL, end - i,
		    slice->channels, stats->sum + first, stats->sum_squares + first,
		    stats->absmax + first, min, max);
		if (!isfinite(*min) || !isfinite(*max))
			return refuse(slice, i, end, err);
	}
	stats->slice_rows[number] += slice->count;
	if (number == 0)
		stats->tokens += slice->count;
	return true;
}

/* --- folding ---------------------------------------------------------------------------------- */

/* One batch into the state. The moving average rounds like the reference: both factors to float32,
 * each product to float32, then their sum. */
/* start * keep + end * take, every operation rounded to dtype. */
static float blend(enum mc_dtype dtype, float start, float keep, float end, float take)
{
	return mc_round_to(dtype, mc_round_to(dtype, start * keep) + mc_round_to(dtype, end * take));
}

static void fold(struct mc_range *state, const struct mc_observer *observer, float min, float max)
{
	float keep = (float)(1.0 - observer->averaging_constant);
	float take = (float)observer->averaging_constant;
	enum mc_observer_kind kind = observer->kind;

	if (min > max)
		return; /* a batch without data */
	min = mc_round_to(observer->dtype, min);
	max = mc_round_to(observer->dtype, max);
	if (!state->seen || kind == MC_OBSERVER_MEMORYLESS) {
		*state = (struct mc_range){.min = min, .max = max, .seen = true};
		return;
	}
	if (kind == MC_OBSERVER_STATIC) {
		state->min = fminf(state->min, min);
		state->max = fmaxf(state->max, max);
		return;
	}
	state->min = blend(observer->dtype, state->min, keep, min, take);
	state->max = blend(observer->dtype, state->max, keep, max, take);
}

struct mc_range mc_observe(
    const struct mc_observer *observer, const float *mins, const float *maxs, size_t batches)
{
	struct mc_range state = {0};

	for (size_t b = 0; b < batches; b++)
		fold(&state, observer, mins[b], maxs[b]);
	return state;
}

struct mc_range mc_input_stats_range(
    const struct mc_input_stats *stats, const struct mc_observer *observer)
{
	struct mc_range state = {0};

	for (size_t q = 0; q < stats->sequences; q++) {
		float min = INFINITY, max = -INFINITY;
		for (size_t s = 0; s < stats->slices; s++) {
			min = fminf(min, stats->slice_min[s * stats->sequences + q]);
			max = fmaxf(max, stats->slice_max[s * stats->sequences + q]);
		}
		fold(&state, observer, min, max);
	}
	return state;
}

struct mc_moments mc_input_stats_moments(const struct mc_input_stats *stats)
{
	const struct mc_observer exact = {.kind = MC_OBSERVER_STATIC, .dtype = MC_F32};
	struct mc_range range = mc_input_stats_range(stats, &exact);
	struct mc_moments ret = {.tokens = stats->tokens, .min = range.min, .max = range.max};
	double n = (double)stats->tokens * (double)stats->channels, sum = 0, sum_squares = 0;

	if (!(n > 0))
		return ret;
	for (size_t c = 0; c < stats->channels; c++) {
		sum += stats->sum[c];
		sum_squares += stats->sum_squares[c];
	}
	ret.mean = sum / n;
	ret.variance = fmax(sum_squares / n - ret.mean * ret.mean, 0);
	ret.absmax = fmaxf(fabsf(range.min), fabsf(range.max));
	return ret;
}

void mc_input_stats_mean_square(const struct mc_input_stats *stats, float *ret)
{
	double tokens = (double)stats->tokens;

	for (size_t c = 0; c < stats->channels; c++)
		ret[c] = tokens > 0 ? (float)(stats->sum_squares[c] / tokens) : 0;
}

void mc_input_stats_gather(struct mc_input_stats *stats)
{
	size_t n = stats->sequences;

	for (size_t s = 1; s < stats->slices; s++)
		for (size_t q = 0; q < n; q++) {
			float *min = &stats->slice_min[s * n + q], *max = &stats->slice_max[s * n + q];
			stats->slice_min[q] = fminf(stats->slice_min[q], *min);
			stats->slice_max[q] = fmaxf(stats->slice_max[q], *max);
			*min = INFINITY;
			*max = -INFINITY;
		}
}
