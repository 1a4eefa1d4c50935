/*
 * rtn.h - round to nearest by its definition, one value at a time in doubles
 */
#ifndef MC_REFERENCE_RTN_H
#define MC_REFERENCE_RTN_H

#include "reference/reference.h"

struct ref_rtn {
	int bits; /* 0: E4M3; -4: E2M1 */
	bool symmetric;
	const struct ref_format *dt; /* NULL: float32 */
};
/* One group: scale, zero point and what each value becomes as a code and as a value. */
void ref_rtn_group(const struct ref_rtn *how, const float *x, size_t n, double *scale, double *zero,
    double *codes, double *values);
/* Its halves: the scale of a range, and codes by a scale. */
void ref_rtn_range(const struct ref_rtn *how, double min, double max, double *scale, double *zero);
void ref_rtn_codes(const struct ref_rtn *how, const float *x, size_t n, double scale, double zero,
    double *codes, double *values);
/* The power of two that an MX scale is, of 4 bits (bits -4) or 8 (0), for a greatest distance from
 * 0. */
double ref_mx_scale(int bits, double absmax);
/* The multiplier of tensor_group, and the E4M3 scale of a group under it. */
double ref_global_scale(const struct ref_format *dt, double absmax);
double ref_local_scale(const struct ref_format *dt, double absmax, double global);

#endif
