/*
 * input_search.h - input observers that ranges a sequence cannot serve
 *
 * A search (mse) needs the error of every candidate over a sequence's inputs, and candidates follow
 * from the sequence's range; a moving average over groups of channels (dynamic "local", where the
 * reference sees [tokens, channels] of a sequence apart) needs a range for each group. Both read
 * the layer's inputs again: the caller runs the layer's forward once more a pass, from the same
 * hidden states, with another tap. Source: 4.1 to 4.3 of the quantization reference.
 */
#ifndef MC_RUN_INPUT_SEARCH_H
#define MC_RUN_INPUT_SEARCH_H

#include "moecal/job.h"
#include "moecal/observer.h"
#include "moecal/weight_observer.h"

/* One site's inputs under one scheme. Arrays are indexed [part, sequence]: a part is a group of
 * channels, or a slice of the tap when all channels have one range. */
struct mc_input_search {
	const struct mc_input_stats *stats; /* whose inputs */
	const struct mc_scheme *scheme;     /* under whose input_activations */
	struct mc_quant_args args;          /* as the search rounds */
	enum mc_dtype dt;
	struct mc_weight_observer observer;
	struct mc_power power;
	size_t width, parts;   /* channels of a part */
	bool grouped;          /* each part has its own range */
	float *min, *max;      /* [parts, sequences]; not grouped: [sequences] */
	double *error;         /* [parts, sequences, steps] or NULL */
	float *least;          /* [parts]: of the sequence being settled */
	uint32_t *best;        /* [parts]: its candidate */
	struct mc_range range; /* the result, when done */
};

struct mc_input_searches {
	size_t count;
	struct mc_input_search *items;
	const struct mc_layer_observer *observer; /* NULL: of the head, items[0] alone */
	const uint64_t *start;                    /* [sequences + 1] */
	int pass;                                 /* which is in work */
	struct mc_qparam *qparams;                /* [workers, steps] */
	float *scratch;                           /* [workers, 2 * MC_TAP_CHANNELS] */
	size_t most_steps;
};

/* What a layer needs, after its first pass; module by module. count 0: nothing. All from
 * env->arena. layer = layers: the head, whose statistics are `head`. */
bool mc_input_searches_init(struct mc_input_searches *searches, const struct mc_job *job,
    size_t layer, const struct mc_layer_observer *observer, const struct mc_input_stats *head,
    const uint64_t *start, const struct mc_env *env, struct mc_error *err) MC_CHECKED;
uint64_t mc_input_searches_bytes(const struct mc_job *job, size_t layer, unsigned workers);

/* Whether one more pass over the inputs is needed, with the tap below; at most two are. Once it
 * says no, the results are there. */
bool mc_input_searches_next(struct mc_input_searches *searches);
struct mc_tap mc_input_searches_tap(struct mc_input_searches *searches);

/* The range of these statistics under this scheme; false when no search was made for them. */
bool mc_input_searches_find(const struct mc_input_searches *searches,
    const struct mc_input_stats *stats, const struct mc_scheme *scheme, struct mc_range *ret);

#endif
