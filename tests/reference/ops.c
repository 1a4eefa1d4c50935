/*
 * ops.c - norms, activations, attention, rotary, routing by their definitions
 */
#include <math.h>
#include <stdlib.h>

#include "reference/reference.h"

void ref_rms_norm(const float *x, const float *w, double eps, size_t n, double *y)
{
	double sum = 0;
	for (size_t i = 0; i < n; i++)
		sum += (double)x[i] * (double)x[i];
	for (size_t i = 0; i < n; i++)
		y[i] = (double)w[i] * (double)x[i] / sqrt(sum / (double)n + eps);
}

double ref_silu(double z)
{
	return z / (1 + exp(-z));
}

void ref_softmax(const double *x, size_t n, double *y)
{
	double largest = x[0], sum = 0;
	for (size_t i = 1; i < n; i++)
		largest = x[i] > largest ? x[i] : largest;
	for (size_t i = 0; i < n; i++)
		sum += exp(x[i] - largest);
	for (size_t i = 0; i < n; i++)
		y[i] = exp(x[i] - largest) / sum;
}

double ref_cross_entropy(const float *logits, size_t n, size_t target)
{
	double *x = malloc(2 * n * sizeof(*x));
	if (x == NULL)
		abort();
	for (size_t i = 0; i < n; i++)
		x[i] = (double)logits[i];
	ref_softmax(x, n, x + n);
	double loss = -log(x[n + target]);
	free(x);
	return loss;
}

void ref_attention(const float *q, const float *k, const float *v, size_t tokens, size_t head_dim,
    double scale, size_t window, double *out)
{
	double *score = malloc(2 * tokens * sizeof(*score));
	if (score == NULL)
		abort();
	for (size_t t = 0; t < tokens; t++) {
		for (size_t u = 0; u < tokens; u++) {
			double dot = 0;
			for (size_t i = 0; i < head_dim; i++)
				dot += (double)q[t * head_dim + i] * (double)k[u * head_dim + i];
			bool seen = u <= t && (window == 0 || u + window > t);
			score[u] = seen ? scale * dot : -INFINITY;
		}
		ref_softmax(score, tokens, score + tokens);
		for (size_t i = 0; i < head_dim; i++) {
			double sum = 0;
			for (size_t u = 0; u < tokens; u++)
				sum += score[tokens + u] * (double)v[u * head_dim + i];
			out[t * head_dim + i] = sum;
		}
	}
	free(score);
}

void ref_rotary_half(const float *x, const float *inv_freq, size_t half, size_t n, size_t position,
    double factor, double *y)
{
	for (size_t i = 0; i < n; i++)
		y[i] = (double)x[i];
	for (size_t j = 0; j < half; j++) {
		double angle = (double)((float)position * inv_freq[j]); /* float32 by definition */
		double a = (double)x[j], b = (double)x[j + half];
		y[j] = factor * (a * cos(angle) - b * sin(angle));
		y[j + half] = factor * (b * cos(angle) + a * sin(angle));
	}
}

void ref_top_k_softmax(const float *logits, size_t experts, size_t k, bool renormalise,
    uint32_t *index, double *weight)
{
	double *p = calloc(2 * experts, sizeof(*p));
	bool *taken = calloc(experts, sizeof(*taken));
	if (p == NULL || taken == NULL)
		abort();
	for (size_t e = 0; e < experts; e++)
		p[experts + e] = (double)logits[e];
	ref_softmax(p + experts, experts, p);
	for (size_t i = 0; i < k; i++) {
		size_t best = experts;
		for (size_t e = 0; e < experts; e++)
			if (!taken[e] && (best == experts || logits[e] > logits[best]))
				best = e;
		taken[best] = true;
	}
	double sum = 0;
	for (size_t e = 0, i = 0; e < experts; e++) {
		if (!taken[e])
			continue;
		index[i] = (uint32_t)e;
		weight[i++] = p[e];
		sum += p[e];
	}
	for (size_t i = 0; renormalise && i < k; i++)
		weight[i] /= sum;
	free(taken);
	free(p);
}
