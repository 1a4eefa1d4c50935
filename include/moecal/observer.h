/*
 * observer.h - statistics of linears' inputs, and ranges of attention's heads
 *
 * One mc_input_stats holds what was seen at one site (of one expert). Ranges are kept per sequence,
 * because a sequence is a calibration batch: the running observers are then a fold over them.
 */
#ifndef MC_OBSERVER_H
#define MC_OBSERVER_H

#include "moecal/forward.h"

enum mc_observer_kind {
	MC_OBSERVER_MEMORYLESS, /* the last batch */
	MC_OBSERVER_STATIC,     /* min of minima, max of maxima */
	MC_OBSERVER_MOVING      /* first batch, then state * (1 - c) + new * c, c = averaging_constant */
};
/* Names as recipes spell them, any case, '_' and ' ' as '-': memoryless_minmax, static_minmax, minmax. */
bool mc_observer_find(const char *name, enum mc_observer_kind *ret_kind);

struct mc_input_stats {
	size_t channels, sequences, slices;
	uint64_t tokens;      /* rows seen */
	float *slice_min;     /* [slices, sequences]; +inf where nothing was seen */
	float *slice_max;     /* [slices, sequences]; -inf likewise */
	uint64_t *slice_rows; /* [slices] */
	double *sum;          /* [channels] */
	double *sum_squares;  /* [channels] */
	float *absmax;        /* [channels] */
};

/* Zeroed, from env->arena. Errors: NO_MEMORY. */
bool mc_input_stats_init(struct mc_input_stats *stats, size_t channels, size_t sequences,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;
uint64_t mc_input_stats_bytes(size_t channels, size_t sequences);
/* Adds a slice; any slices of distinct first_channel may be added at once. `start` [sequences + 1] says
 * which sequence a token belongs to. Errors: CORRUPT when a value is not finite, by token and channel;
 * the statistics are of no use then. */
bool mc_input_stats_add(struct mc_input_stats *stats, const struct mc_tap_slice *slice,
    const uint64_t *start, struct mc_error *err) MC_CHECKED;

struct mc_range {
	float min, max;
	bool seen; /* false: no token */
};

/* How ranges of batches become one. dtype: what the observed tensor has in a run of the model as
 * calibrated; batches' ranges and every operation of the average are rounded to it, so a moving average
 * in BF16 stands still once a step is below half a unit, as in the reference. */
struct mc_observer {
	enum mc_observer_kind kind;
	double averaging_constant; /* MOVING alone */
	enum mc_dtype dtype;
};
/* The observer's range over the sequences in order. */
struct mc_range mc_input_stats_range(
    const struct mc_input_stats *stats, const struct mc_observer *observer);
/* The fold alone: mins, maxs [batches]; batches without data have min > max and are passed over. */
struct mc_range mc_observe(
    const struct mc_observer *observer, const float *mins, const float *maxs, size_t batches);

/* Over all rows and channels: population moments. */
struct mc_moments {
	uint64_t tokens;
	double mean, variance;
	float min, max, absmax;
};
struct mc_moments mc_input_stats_moments(const struct mc_input_stats *stats);
/* per-channel mean square: ret [channels] */
void mc_input_stats_mean_square(const struct mc_input_stats *stats, float *ret);
/* Gathers the ranges of all slices in the first one's place, slice_min and slice_max [sequences]; the
 * others are empty then. Folds give the same before and after. */
void mc_input_stats_gather(struct mc_input_stats *stats);

/*
 * Ranges of what enters attention, a head and a sequence. Slices of the tap cut heads wherever they
 * end, so what is kept is a range of each piece: head h within slice s is piece h + s, which no other
 * pair is, as both only grow along the channels.
 */
struct mc_head_ranges {
	size_t heads, head_dim, sequences, pieces;
	float *min; /* [pieces + 1, sequences]; +inf where nothing was seen; the last row is scratch */
	float *max; /* likewise; -inf */
};
/* From env->arena, nothing seen. Errors: NO_MEMORY. */
bool mc_head_ranges_init(struct mc_head_ranges *ranges, size_t heads, size_t head_dim,
    size_t sequences, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
uint64_t mc_head_ranges_bytes(size_t heads, size_t head_dim, size_t sequences);
/* Adds a slice of the site; slices of distinct first_channel may be added at once. Errors: CORRUPT
 * when a value is not finite, by token and head; the ranges are of no use then. */
bool mc_head_ranges_add(struct mc_head_ranges *ranges, const struct mc_tap_slice *slice,
    const uint64_t *start, struct mc_error *err) MC_CHECKED;
/* The observer's range of one head (MC_NO_INDEX: of all together) over the sequences in order. Not
 * from several threads. */
struct mc_range mc_head_ranges_range(
    struct mc_head_ranges *ranges, size_t head, const struct mc_observer *observer);
/* From pieces to heads, min and max [heads, sequences], of no use for folds then; and back. */
void mc_head_ranges_pack(struct mc_head_ranges *ranges);
void mc_head_ranges_unpack(struct mc_head_ranges *ranges);

/*
 * The statistics of one layer: one mc_input_stats a site, one an expert for down, and, in routed
 * mode, one an expert for gate/up besides the layer's. Its tap feeds them and coverage.
 */
struct mc_coverage_layer;
struct mc_layer_observer {
	const struct mc_batch *batch; /* borrowed */
	size_t layer;
	struct mc_input_stats qkv, o, gate_up; /* gate_up: all tokens, always */
	struct mc_input_stats dense_down;
	struct mc_input_stats *expert_gate_up; /* [E]; NULL when experts see all tokens */
	struct mc_input_stats *expert_down;    /* [E]; NULL in a dense layer */
	size_t experts;
	struct mc_coverage_layer *coverage;    /* borrowed; NULL in a dense layer */
	struct mc_head_ranges *query, *key, *value; /* borrowed, set by who wants them; else NULL */
};
bool mc_layer_observer_init(struct mc_layer_observer *observer, const struct mc_model *model, size_t layer,
    const struct mc_batch *batch, bool see_all_tokens, struct mc_coverage_layer *coverage,
    const struct mc_env *env, struct mc_error *err) MC_CHECKED;
uint64_t mc_layer_observer_bytes(const struct mc_model *model, size_t layer, size_t sequences,
    bool see_all_tokens);
struct mc_tap mc_layer_observer_tap(struct mc_layer_observer *observer);
/* Where a module's input statistics are; and, when its expert saw no token, those of the layer that
 * stand in for them (gate/up: the layer's gate_up; down: NULL). NULL for a module without input here. */
const struct mc_input_stats *mc_layer_observer_of(const struct mc_layer_observer *observer,
    const struct mc_module *module);

#endif
