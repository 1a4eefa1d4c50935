/*
 * rtn.h - round to nearest by its definition, one value at a time in doubles
 */
#ifndef MC_REFERENCE_RTN_H
#define MC_REFERENCE_RTN_H

#include "reference/reference.h"

struct ref_rtn {
	int bits; /* 0: E4M3 */
	bool symmetric;
	const struct ref_format *dt; /* NULL: float32 */
};
/* One group: scale, zero point and what each value becomes as a code and as a value. */
void ref_rtn_group(const struct ref_rtn *how, const float *x, size_t n, double *scale, double *zero,
    double *codes, double *values);

#endif
