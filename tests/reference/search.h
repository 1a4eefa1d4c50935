/*
 * search.h - the search of a weight's ranges by its definition
 */
#ifndef MC_REFERENCE_SEARCH_H
#define MC_REFERENCE_SEARCH_H

#include "reference/rtn.h"

struct ref_search {
	struct ref_rtn rtn;
	double norm, expand;
	unsigned grid, steps, patience; /* patience 0 with weights: never stops early */
	const float *weights;           /* [cols]: errors in float32, weighted; NULL: in dt */
	unsigned cols;
};
/* x [groups * width], groups one after another along rows of `cols`; the step that each takes. */
void ref_search_groups(
    const struct ref_search *how, const float *x, unsigned groups, unsigned width, unsigned *steps);

#endif
