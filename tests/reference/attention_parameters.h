/*
 * attention_parameters.h - scales and zero points of q, k and v by their definition, in float64
 */
#ifndef MC_REFERENCE_ATTENTION_PARAMETERS_H
#define MC_REFERENCE_ATTENTION_PARAMETERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct ref_attention_scheme {
	int bits; /* 0: E4M3 */
	bool symmetric, per_head;
	char observer; /* 's' static_minmax, 'm' minmax, 'l' memoryless_minmax */
	double averaging_constant;
};
/* x [T, heads * head_dim] of sequences start [sequences + 1]; scale, zero [heads] or [1]. */
void ref_attention_parameters(const struct ref_attention_scheme *how, const double *x, size_t heads,
    size_t head_dim, const uint64_t *start, size_t sequences, double *scale, double *zero);

#endif
