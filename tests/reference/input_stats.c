/*
 * input_stats.c - the definitions of input statistics, one value at a time
 */
#include "reference/input_stats.h"

#include <math.h>

void ref_range(const float *x, size_t channels, const bool *chosen, size_t from, size_t to,
    float *ret_min, float *ret_max)
{
	*ret_min = INFINITY;
	*ret_max = -INFINITY;
	for (size_t t = from; t < to; t++)
		for (size_t c = 0; chosen[t] && c < channels; c++) {
			*ret_min = fminf(*ret_min, x[t * channels + c]);
			*ret_max = fmaxf(*ret_max, x[t * channels + c]);
		}
}

struct ref_moments ref_moments(const float *x, size_t channels, const bool *chosen, size_t tokens)
{
	struct ref_moments ret = {0};
	long double sum = 0, spread = 0, n;

	for (size_t t = 0; t < tokens; t++) {
		ret.rows += chosen[t];
		for (size_t c = 0; chosen[t] && c < channels; c++)
			sum += (long double)x[t * channels + c];
	}
	if (ret.rows == 0)
		return ret;
	n = (long double)ret.rows * (long double)channels;
	for (size_t t = 0; t < tokens; t++)
		for (size_t c = 0; chosen[t] && c < channels; c++) {
			long double d = (long double)x[t * channels + c] - sum / n;
			spread += d * d;
		}
	ret.mean = (double)(sum / n);
	ret.variance = (double)(spread / n);
	ref_range(x, channels, chosen, 0, tokens, &ret.min, &ret.max);
	ret.absmax = fmaxf(fabsf(ret.min), fabsf(ret.max));
	return ret;
}

float ref_channel_absmax(
    const float *x, size_t channels, const bool *chosen, size_t tokens, size_t channel)
{
	float absmax = 0;

	for (size_t t = 0; t < tokens; t++)
		if (chosen[t])
			absmax = fmaxf(absmax, fabsf(x[t * channels + channel]));
	return absmax;
}

double ref_channel_mean_square(
    const float *x, size_t channels, const bool *chosen, size_t tokens, size_t channel)
{
	long double sum = 0;
	size_t rows = 0;

	for (size_t t = 0; t < tokens; t++)
		if (chosen[t]) {
			long double v = (long double)x[t * channels + channel];
			sum += v * v;
			rows++;
		}
	return rows > 0 ? (double)(sum / (long double)rows) : 0;
}

void ref_head_range(const float *x, size_t heads, size_t head_dim, size_t head, size_t from,
    size_t to, float *ret_min, float *ret_max)
{
	*ret_min = INFINITY;
	*ret_max = -INFINITY;
	for (size_t t = from; t < to; t++)
		for (size_t c = 0; c < head_dim; c++) {
			float v = x[(t * heads + head) * head_dim + c];
			*ret_min = fminf(*ret_min, v);
			*ret_max = fmaxf(*ret_max, v);
		}
}
