/*
 * weight_observer.h - which range of a weight's values its scales cover
 *
 * Min-max takes all of it. The searches try ranges p * [min, max] for a falling p and keep, for
 * each scale, the one whose rounded values lie closest: mse in dt, imatrix in float32, weighted by
 * the mean squares of the inputs. They stop early for the whole tensor at once. Source:
 * sections 4.2 to 4.4 of the quantization reference. Tests: tests/unit/test_weight_observer.c.
 */
#ifndef MC_WEIGHT_OBSERVER_H
#define MC_WEIGHT_OBSERVER_H

#include "moecal/arena.h"
#include "moecal/power.h"
#include "moecal/qparams.h"
#include "moecal/tensor.h"

enum mc_search { MC_SEARCH_NONE, MC_SEARCH_MSE, MC_SEARCH_IMATRIX };

struct mc_weight_observer {
	enum mc_search search;
	double expand; /* of the range before the search */
	double norm;   /* of the distance */
	unsigned grid, steps,
	    patience;  /* p = 1 - step / grid; patience 0 of imatrix: no early stop */
	bool averages; /* of inputs: batches go into a moving average */
	bool strict;   /* imatrix: an error where there are no mean squares to weigh with */
};

/* What args name, with their observer_kwargs checked; running observers count as their memoryless
 * forms, no name as min-max. Errors: UNSUPPORTED or INVALID, at `where`, naming argument and value.
 */
bool mc_weight_observer_make(struct mc_weight_observer *observer, const struct mc_quant_args *args,
    const char *where, struct mc_error *err) MC_CHECKED;

/* What was seen in a weight. */
struct mc_observed {
	float absmax; /* largest distance from 0 of any range, in dt: for the global scale */
	uint16_t
	    *step; /* [scale_rows, scale_cols]: which p was best; NULL for min-max. Of the arena. */
};

/* Arena bytes that stay, and bytes taken on the way beside them. */
uint64_t mc_observed_bytes(const struct mc_quant_args *args, size_t rows, size_t cols);
uint64_t mc_observe_scratch_bytes(const struct mc_quant_args *args, size_t rows, size_t cols);
/*
 * Observes a whole weight in one thread. mean_square [cols]: of the linear's input, for imatrix;
 * NULL or useless (not finite, negative, all zero): not weighted, or an error when strict. step
 * lies in `arena`, scratch comes from it and goes back. Errors: CORRUPT for a value that is not
 * finite (name, row, column); INVALID, NO_MEMORY, UNSUPPORTED.
 */
bool mc_observe_weight(const struct mc_weight *weight, const struct mc_quant_args *args,
    const float *mean_square, const char *name, struct mc_arena *arena, struct mc_observed *ret,
    struct mc_error *err) MC_CHECKED;

/* args as a search rounds by them: under a global scale it has scales of dt. */
struct mc_quant_args mc_search_args(const struct mc_quant_args *args);
/* One candidate for n values: the sum of |rounded - x|^norm, not rounded itself; args of
 * mc_search_args. scratch [n]. Of what a weight's search does, for other values than weights. */
double mc_search_error(const struct mc_quant_args *args, enum mc_dtype dt,
    const struct mc_power *power, struct mc_qparam qparam, const float *x, float *scratch,
    size_t n);
/* The largest finite number of dt: what an error must be less than. */
float mc_search_largest(enum mc_dtype dt);

/* The range after `step`: [min, max] expanded and shrunk, each operation rounded to dt. */
void mc_weight_observer_range(const struct mc_weight_observer *observer, enum mc_dtype dt,
    unsigned step, float *min, float *max);

#endif
