/*
 * search.c - see search.h
 */
#include "reference/search.h"

#include <float.h>
#include <math.h>

static double to(const struct ref_format *dt, double v)
{
	return dt == NULL ? (float)v : ref_round(dt, (float)v);
}

/* The error of one group at one step. */
static double error_of(
    const struct ref_search *how, const float *x, unsigned first, unsigned width, unsigned step)
{
	const struct ref_format *dt = how->rtn.dt, *error_dt = how->weights == NULL ? dt : NULL;
	double min = INFINITY, max = -INFINITY, sum = 0, mean = 0, codes[1024], values[1024];
	double p = (float)(1.0 - (double)step / how->grid), scale, zero;
	/* the exponent is rounded to the dtype of the errors */
	double norm = to(error_dt, how->norm);

	for (unsigned i = 0; i < width; i++) {
		min = fmin(min, x[first + i]);
		max = fmax(max, x[first + i]);
	}
	min = to(dt, to(dt, min * (float)how->expand) * p);
	max = to(dt, to(dt, max * (float)how->expand) * p);
	ref_rtn_range(&how->rtn, min, max, &scale, &zero);
	ref_rtn_codes(&how->rtn, x + first, width, scale, zero, codes, values);
	for (unsigned i = 0; how->weights != NULL && i < how->cols; i++)
		mean += how->weights[i] / (double)how->cols;
	for (unsigned i = 0; i < width; i++) {
		double distance = fabs(to(error_dt, values[i] - x[first + i]));
		double power = norm == 3 && error_dt == NULL
				   ? (double)((float)(distance * distance) * (float)distance)
				   : to(error_dt, pow(distance, norm));
		double weight = how->weights == NULL ? 1
						     : how->weights[(first + i) % how->cols] /
							   (float)((float)mean + 0x1p-126f);
		sum += how->weights == NULL ? power : (double)(float)(power * (float)weight);
	}
	return to(error_dt, sum);
}

void ref_search_groups(
    const struct ref_search *how, const float *x, unsigned groups, unsigned width, unsigned *steps)
{
	const struct ref_format *dt = how->weights == NULL ? how->rtn.dt : NULL;
	double best[4096];
	unsigned misses = 0;

	for (unsigned g = 0; g < groups; g++) {
		best[g] = dt == NULL ? (double)FLT_MAX : dt->largest;
		steps[g] = 0;
	}
	for (unsigned step = 0; step < how->steps; step++) {
		int improved = 0;
		for (unsigned g = 0; g < groups; g++) {
			double error = error_of(how, x, g * width, width, step);
			if (error < best[g]) {
				best[g] = error;
				steps[g] = step;
				improved = 1;
			}
		}
		misses = improved ? 0 : misses + 1;
		if (misses > 0 && misses >= how->patience &&
		    !(how->patience == 0 && how->weights != NULL))
			return;
	}
}
