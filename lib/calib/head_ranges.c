/*
 * head_ranges.c - ranges of attention's heads, a sequence at a time
 *
 * As in observer.c a slice owns its part: its pieces are no other slice's, so workers on different
 * slices never meet. A range does not depend on the order in which rows come.
 */
#include "moecal/observer.h"

#include <math.h>
#include <string.h>

#include "moecal/alloc.h"
#include "moecal/ops.h"

#include "sequence.h"

/* Pieces that heads and slices cut the channels into; some of them may stay empty. */
static bool count_pieces(size_t heads, size_t head_dim, size_t *ret)
{
	uint64_t channels, pieces;

	if (!mc_mul(heads, head_dim, &channels) ||
	    !mc_add(heads, channels / MC_TAP_CHANNELS + 1, &pieces))
		return false;
	*ret = (size_t)pieces;
	return true;
}

bool mc_head_ranges_init(struct mc_head_ranges *ranges, size_t heads, size_t head_dim,
    size_t sequences, const struct mc_env *env, struct mc_error *err)
{
	uint64_t count;

	mc_assert(heads > 0 && head_dim > 0);
	*ranges = (struct mc_head_ranges){
	    .heads = heads, .head_dim = head_dim, .sequences = sequences};
	if (!count_pieces(heads, head_dim, &ranges->pieces) ||
	    !mc_mul(ranges->pieces + 1, sequences, &count))
		return mc_fail(err, MC_NO_MEMORY, "head ranges",
		    "%zu heads of %zu sequences are more than can be counted", heads, sequences);
	ranges->min = mc_arena_alloc(env->arena, count, sizeof(float), "head ranges", err);
	ranges->max = mc_arena_alloc(env->arena, count, sizeof(float), "head ranges", err);
	if (ranges->min == NULL || ranges->max == NULL)
		return false;
	for (size_t i = 0; i < count; i++) {
		ranges->min[i] = INFINITY;
		ranges->max[i] = -INFINITY;
	}
	return true;
}

uint64_t mc_head_ranges_bytes(size_t heads, size_t head_dim, size_t sequences)
{
	uint64_t bytes;
	size_t pieces;

	if (!count_pieces(heads, head_dim, &pieces) || !mc_mul(pieces + 1, sequences, &bytes) ||
	    !mc_mul(bytes, sizeof(float), &bytes) || bytes > UINT64_MAX / 4)
		return UINT64_MAX;
	return 2 * ((bytes + 63) / 64 * 64);
}

/* --- adding ----------------------------------------------------------------------------------- */

static bool refuse(const struct mc_tap_slice *slice, size_t first, size_t width, size_t from,
    size_t to, size_t head, struct mc_error *err)
{
	for (size_t i = from; i < to; i++)
		for (size_t c = first; c < first + width; c++) {
			float v = slice->x[i * slice->ldx + c];
			if (!isfinite(v))
				return mc_fail(err, MC_CORRUPT, "head ranges",
				    "token %zu, head %zu holds %g; what enters attention must be "
				    "finite",
				    slice->first_token + i, head, (double)v);
		}
	return mc_fail(err, MC_INTERNAL, "head ranges", "the range of finite values is not finite");
}

/* Rows [from, to), all of one sequence. */
static bool add_sequence(struct mc_head_ranges *ranges, const struct mc_tap_slice *slice,
    size_t sequence, size_t from, size_t to, struct mc_error *err)
{
	size_t number = slice->first_channel / MC_TAP_CHANNELS, width;

	for (size_t c = 0; c < slice->channels; c += width) {
		size_t channel = slice->first_channel + c, head = channel / ranges->head_dim;
		size_t left = (head + 1) * ranges->head_dim - channel;
		size_t at = (head + number) * ranges->sequences + sequence;

		width = left < slice->channels - c ? left : slice->channels - c;
		mc_range_rows(slice->x + from * slice->ldx + c, slice->ldx, to - from, width,
		    &ranges->min[at], &ranges->max[at]);
		if (!isfinite(ranges->min[at]) || !isfinite(ranges->max[at]))
			return refuse(slice, c, width, from, to, head, err);
	}
	return true;
}

bool mc_head_ranges_add(struct mc_head_ranges *ranges, const struct mc_tap_slice *slice,
    const uint64_t *start, struct mc_error *err)
{
	size_t to, channels = ranges->heads * ranges->head_dim;

	mc_assert(slice->rows == NULL && slice->first_channel % MC_TAP_CHANNELS == 0 &&
		  slice->first_channel < channels && slice->channels <= MC_TAP_CHANNELS &&
		  slice->channels <= channels - slice->first_channel);
	for (size_t from = 0; from < slice->count; from = to) {
		uint64_t token = (uint64_t)slice->first_token + from;
		size_t sequence = mc_sequence_of(start, ranges->sequences, token);
		uint64_t left = start[sequence + 1] - token;

		to = left < slice->count - from ? from + (size_t)left : slice->count;
		if (!add_sequence(ranges, slice, sequence, from, to, err))
			return false;
	}
	return true;
}

/* --- folding ---------------------------------------------------------------------------------- */

static size_t first_piece(const struct mc_head_ranges *ranges, size_t head)
{
	return head + head * ranges->head_dim / MC_TAP_CHANNELS;
}

static size_t last_piece(const struct mc_head_ranges *ranges, size_t head)
{
	return head + ((head + 1) * ranges->head_dim - 1) / MC_TAP_CHANNELS;
}

struct mc_range mc_head_ranges_range(
    struct mc_head_ranges *ranges, size_t head, const struct mc_observer *observer)
{
	size_t n = ranges->sequences, first = 0, last = ranges->pieces - 1;
	float *min = &ranges->min[ranges->pieces * n], *max = &ranges->max[ranges->pieces * n];

	mc_assert(head == MC_NO_INDEX || head < ranges->heads);
	if (head != MC_NO_INDEX) {
		first = first_piece(ranges, head);
		last = last_piece(ranges, head);
	}
	for (size_t s = 0; s < n; s++) {
		min[s] = INFINITY;
		max[s] = -INFINITY;
		for (size_t p = first; p <= last; p++) {
			min[s] = fminf(min[s], ranges->min[p * n + s]);
			max[s] = fmaxf(max[s], ranges->max[p * n + s]);
		}
	}
	return mc_observe(observer, min, max, n);
}

/* In place: row `head` is no piece of a later head. */
void mc_head_ranges_pack(struct mc_head_ranges *ranges)
{
	size_t n = ranges->sequences;

	for (size_t head = 0; head < ranges->heads; head++)
		for (size_t s = 0; s < n; s++) {
			float min = INFINITY, max = -INFINITY;
			for (size_t p = first_piece(ranges, head); p <= last_piece(ranges, head); p++) {
				min = fminf(min, ranges->min[p * n + s]);
				max = fmaxf(max, ranges->max[p * n + s]);
			}
			ranges->min[head * n + s] = min;
			ranges->max[head * n + s] = max;
		}
}

/* The last head first: its first piece is no row of an earlier one. */
void mc_head_ranges_unpack(struct mc_head_ranges *ranges)
{
	size_t n = ranges->sequences, end = ranges->pieces;

	for (size_t head = ranges->heads; head-- > 0;) {
		size_t first = first_piece(ranges, head);
		memmove(&ranges->min[first * n], &ranges->min[head * n], n * sizeof(float));
		memmove(&ranges->max[first * n], &ranges->max[head * n], n * sizeof(float));
		for (size_t i = (first + 1) * n; i < end * n; i++) {
			ranges->min[i] = INFINITY;
			ranges->max[i] = -INFINITY;
		}
		end = first;
	}
}
