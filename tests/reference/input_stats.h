/*
 * input_stats.h - the definitions of input statistics, one value at a time
 */
#ifndef MC_REFERENCE_INPUT_STATS_H
#define MC_REFERENCE_INPUT_STATS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Over the chosen rows of x [T, C]; two passes in long double; the population's variance. */
struct ref_moments {
	size_t rows;
	double mean, variance;
	float min, max, absmax;
};
struct ref_moments ref_moments(const float *x, size_t channels, const bool *chosen, size_t tokens);

/* Largest magnitude and mean square of one channel over the chosen rows. */
float ref_channel_absmax(
    const float *x, size_t channels, const bool *chosen, size_t tokens, size_t channel);
double ref_channel_mean_square(
    const float *x, size_t channels, const bool *chosen, size_t tokens, size_t channel);

/* Range of the chosen rows among tokens from..to-1; min > max when there is none. */
void ref_range(const float *x, size_t channels, const bool *chosen, size_t from, size_t to,
    float *ret_min, float *ret_max);

/* Of what enters attention: x [T, heads * head_dim]; range of one head among tokens from..to-1; min >
 * max when there is none. */
void ref_head_range(const float *x, size_t heads, size_t head_dim, size_t head, size_t from,
    size_t to, float *ret_min, float *ret_max);

#endif
