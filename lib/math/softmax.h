/*
 * softmax.h - the part of a softmax that attention shares
 */
#ifndef MC_MATH_SOFTMAX_H
#define MC_MATH_SOFTMAX_H

#include <stddef.h>

/* row[i] = exp(scale * row[i] - largest of these); returns their sum (float64, fixed order). n
 * >= 1. */
double mc_softmax_terms(float *row, size_t n, float scale);

#endif
